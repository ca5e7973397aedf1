"""A real supervisord with a real Redis under it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stack.components import Stack, redis_problem
from stack.settings import StackSettings
from stack.state import StateFolder, plan_launch
from stack.supervisor import Supervisor, end_leftovers

pytestmark = pytest.mark.redis


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    """A state folder with free ports; whatever was started is ended."""
    state = StateFolder(tmp_path / "state with 100% of a space")
    state.create()
    asked = {"label_studio": 0, "backend": 0, "redis": 0}
    launch = plan_launch(StackSettings(state.path, Path("/bin/true"), asked, {}), None, running=False)
    state.save_launch(launch)
    yield Stack(state, launch, state.load_secrets())
    end_leftovers(state)


def wait_for(what: str, condition: Callable[[], object]) -> None:
    """Until `condition`, for at most 20 s."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def test_a_killed_component_is_started_again(stack):
    """Another process serves the same port with the same password."""
    supervisor = Supervisor(stack)
    supervisor.start(os.environ)
    supervisor.start_component("redis")
    wait_for("Redis answers", lambda: redis_problem(stack) is None)
    killed = supervisor.component_pid("redis")
    os.kill(killed, signal.SIGKILL)
    wait_for("another process", lambda: supervisor.component_pid("redis") not in (0, killed))
    wait_for("Redis answers again", lambda: redis_problem(stack) is None)
    supervisor.stop()
    wait_for("supervisord is gone", lambda: not supervisor.is_running())
    assert redis_problem(stack) is not None


def test_leftovers_of_a_killed_supervisor_are_found_and_ended(stack):
    """Its children live on without it; they carry a mark."""
    supervisor = Supervisor(stack)
    supervisor.start(os.environ)
    supervisor.start_component("redis")
    wait_for("Redis answers", lambda: redis_problem(stack) is None)
    os.kill(int((stack.state.run / "supervisord.pid").read_text()), signal.SIGKILL)
    wait_for("supervisord is gone", lambda: not supervisor.is_running())
    assert redis_problem(stack) is None
    assert end_leftovers(stack.state) == 1
    assert redis_problem(stack) is not None


def test_files_with_secrets_are_private(stack):
    """Nobody else can read what the processes are started with, and no secret is on a command line."""
    supervisor = Supervisor(stack)
    supervisor.start(os.environ)
    supervisor.start_component("redis")
    wait_for("Redis answers", lambda: redis_problem(stack) is None)
    for name in ("redis.conf", "supervisord.conf"):
        assert (stack.state.run / name).stat().st_mode & 0o077 == 0
    command_line = Path(f"/proc/{supervisor.component_pid('redis')}/cmdline").read_bytes().decode()
    assert stack.secrets.redis_password not in command_line
