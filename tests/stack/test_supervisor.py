"""Claims about the supervisor, with a real supervisord that runs a real Redis."""

from __future__ import annotations

import io
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from rich.console import Console
from typer.testing import CliRunner

from registry.sets_in_making import maker, plan
from stack import supervisor as supervisor_module
from stack.__main__ import app
from stack.components import BASE_SET, Stack, base_set_making, redis_problem
from stack.settings import StackSettings
from stack.state import StateFolder, plan_launch
from stack.supervisor import Supervisor, end_leftovers
from stack.up import supervised

pytestmark = pytest.mark.redis


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    """Yield a stack on free ports, in a state folder with special characters; end its processes afterwards."""
    state = StateFolder(tmp_path / "Zustand ü; 100% of #1 'x'")
    state.create()
    launch = plan_launch(settings_of(state), None, running=False)
    state.save_launch(launch)
    yield Stack(state, launch, state.load_secrets())
    end_leftovers(state)


def settings_of(state: StateFolder) -> StackSettings:
    """Return settings with free ports, and with base set and replay data below the state folder."""
    asked = {"label_studio": 0, "backend": 0, "redis": 0}
    return StackSettings(state.path, Path("/bin/true"), asked, {"OSPREY_BASE_SET": str(state.path / "truth" / "base")})


def stack_in(folder: Path) -> Stack:
    """Return the stack that a state folder describes."""
    state = StateFolder(folder)
    launch = state.load_launch()
    assert launch is not None
    return Stack(state, launch, state.load_secrets())


def taken_up(folder: Path) -> tuple[Stack, Supervisor, str]:
    """Prepare the supervisor as `make up` does and start Redis; return also what was printed."""
    said, state = Console(file=io.StringIO(), width=1000), StateFolder(folder)
    stack, supervisor = supervised(settings_of(state), state, os.environ, said)
    supervisor.start_component("redis")
    wait_for("Redis answers", lambda: redis_problem(stack) is None)
    return stack, supervisor, said.file.getvalue()


def wait_for(what: str, condition: Callable[[], object]) -> None:
    """Wait for `condition`, at most 20 s."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def test_a_killed_component_is_started_again(stack):
    """A new process serves the same port with the same password."""
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
    """Children that survive their supervisor are found by the mark in their environment."""
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
    """Only the owner can read the configuration files, and no secret is on a command line."""
    supervisor = Supervisor(stack)
    supervisor.start(os.environ)
    supervisor.start_component("redis")
    wait_for("Redis answers", lambda: redis_problem(stack) is None)
    for name in ("redis.conf", "supervisord.conf"):
        assert (stack.state.run / name).stat().st_mode & 0o077 == 0
    command_line = Path(f"/proc/{supervisor.component_pid('redis')}/cmdline").read_bytes().decode()
    assert stack.secrets.redis_password not in command_line


def test_a_second_up_keeps_the_supervisor(stack):
    """A second start of the same release from the same folder restarts nothing and prints nothing."""
    stack, supervisor, _ = taken_up(stack.state.path)
    pids = supervisor.component_pid("redis"), (stack.state.run / "supervisord.pid").read_text()
    again, supervisor, said = taken_up(stack.state.path)
    assert (supervisor.component_pid("redis"), (stack.state.run / "supervisord.pid").read_text()) == pids
    assert again.launch == stack.launch
    assert said == ""


def test_a_supervisor_of_another_release_is_replaced(stack, monkeypatch):
    """A supervisor whose commands have changed is replaced; the data of Redis and all ports stay."""
    new = supervisor_module._configuration
    with monkeypatch.context() as release:
        release.setattr(
            supervisor_module, "_configuration", lambda of: new(of).replace("%(ENV_OSPREY_STACK_RUN)s data", "/nowhere")
        )
        _, before, _ = taken_up(stack.state.path)
    before_pid = before.component_pid("redis")
    with redis.Redis.from_url(stack.redis_url) as client:
        client.set("kept", "yes")
    after_stack, after, said = taken_up(stack.state.path)
    assert "replaced: it was started by another release" in said
    assert after.component_pid("redis") not in (0, before_pid)
    assert after.outdated() is None
    assert after_stack.launch.ports == stack.launch.ports
    with redis.Redis.from_url(after_stack.redis_url) as client:
        assert client.get("kept") == b"yes"


def test_a_folder_that_was_moved_is_found_again(stack):
    """After a move, with or without a running supervisor, the stack runs in the new folder and nothing in the old."""
    old = stack.state.path
    taken_up(old)
    moved = old.with_name("moved")
    old.rename(moved)
    assert "before the folder was moved" in str(Supervisor(stack_in(moved)).outdated())
    _, supervisor, said = taken_up(moved)
    assert f"it was started in {old}" in said
    assert supervisor.outdated() is None
    assert end_leftovers(StateFolder(old)) == 0, "processes of the old place are left"

    os.kill(int((moved / "run" / "supervisord.pid").read_text()), signal.SIGKILL)
    wait_for("supervisord is gone", lambda: not supervisor.is_running())
    moved.rename(old)
    taken_up(old)
    assert end_leftovers(StateFolder(moved)) == 0


def test_a_folder_that_was_copied_leaves_the_original_alone(stack):
    """A copied folder has the same secrets and ports, but it gets its own ports and processes."""
    original, supervisor, _ = taken_up(stack.state.path)
    pid = supervisor.component_pid("redis")
    copy = stack.state.path.with_name("copy")
    shutil.copytree(stack.state.path, copy)
    try:
        assert supervisor.is_running()
        assert not Supervisor(stack_in(copy)).is_running()
        copied, _, _ = taken_up(copy)
        for name in ("redis", "supervisor"):
            assert copied.launch.ports[name] != original.launch.ports[name]
        assert supervisor.component_pid("redis") == pid
    finally:
        end_leftovers(StateFolder(copy))
    assert redis_problem(original) is None


def test_a_base_set_that_failed_is_made_at_the_next_start(stack):
    """A base set that failed or was interrupted is made by the next start."""
    supervisor = Supervisor(stack)
    supervisor.start(os.environ)
    truth = stack.state.path / "truth"
    truth.touch()  # where its folder should be
    supervisor.start_base_set()
    wait_for("it has ended", lambda: supervisor.process_state(BASE_SET).name == "EXITED")
    assert "exit code 1" in supervisor.process_state(BASE_SET).ended
    assert base_set_making(stack) is None
    truth.unlink()
    supervisor.start_base_set()
    wait_for("it is at work", lambda: base_set_making(stack) is not None)
    supervisor.start_base_set()  # changes nothing
    assert base_set_making(stack).state == "making"
    supervisor.stop_component(BASE_SET)
    assert base_set_making(stack).state == "interrupted"
    supervisor.start_base_set()
    wait_for("it is at work again", lambda: base_set_making(stack).state == "making")
    supervisor.stop()
    wait_for("supervisord is gone", lambda: not supervisor.is_running())


def test_status_shows_the_base_set_and_an_old_supervisor(stack):
    """`status` shows the base set before its start, while it is made and after a failure."""
    taken_up(stack.state.path)
    truth = stack.state.path / "truth"

    def status() -> str:
        environ = {"OSPREY_STATE_DIR": str(stack.state.path), "COLUMNS": "200"}
        return " ".join(CliRunner().invoke(app, ["status"], env=environ).output.split())

    assert "Base set │ stopped │ - │ not started" in status()
    plan(truth)
    assert "waiting for its turn" in status()
    with maker(truth, 3):
        assert "being made, 0 %" in status()
        assert "Clicks work. A fine-tune and its gate wait" in status()
    with pytest.raises(OSError, match="full"), maker(truth, 3):
        raise OSError("the disk is full")
    assert "failed: OSError: the disk is full" in status()
    assert "`make up` makes them again" in status()
    (stack.state.run / "supervisord.conf").write_text("of another release")
    assert "has to be replaced, `make up` does it: it was started by another release" in status()
