"""Claims about `make up`: at a second run, after a crash, and after `make down`."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from demo.scenes import DEMO_SEEDS
from learning.gate.exam import read_base_exam
from osprey_model.data.mixture import read_data_config
from registry.sets_in_making import wait_for_sets
from stack.sample_project import TITLE
from stack.state import MARK
from tests.e2e.running_stack import RunningStack


def sample(stack: RunningStack) -> tuple[int, list[int], int, int]:
    """Return the sample project's id, its task ids, and the numbers of its ML connections and webhooks."""
    with stack.api() as api:
        projects = api.call("GET", "/api/projects", params={"page_size": 1000})["results"]
        (project,) = [each for each in projects if each["title"] == TITLE]
        of_project = {"project": project["id"]}
        tasks = api.call("GET", "/api/tasks", params={**of_project, "page_size": 100})["tasks"]
        connections = api.call("GET", "/api/ml", params=of_project)
        assert connections[0]["is_interactive"]
        assert connections[0]["state"] == "CO"
        hooks = api.call("GET", "/api/webhooks/", params=of_project)
    return project["id"], sorted(task["id"] for task in tasks), len(connections), len(hooks)


def test_sample_project_is_ready_and_a_second_up_changes_nothing(stack):
    """The sample project has twelve scenes, one connection and one webhook; a second `up` restarts and adds nothing."""
    before, pids = sample(stack), [stack.supervisor.component_pid(name) for name in ("redis", "label-studio", "masks")]
    assert len(before[1]) == len(DEMO_SEEDS) == 12
    assert before[2:] == (1, 1)
    output = stack.command("up").stdout
    assert stack.url in output
    assert stack.admin[1] in output
    assert sample(stack) == before
    assert [stack.supervisor.component_pid(name) for name in ("redis", "label-studio", "masks")] == pids
    assert stack.command("status").returncode == 0


def test_a_fine_tune_has_what_the_gate_asks_for(stack):
    """The small model's base set and replay data are made once, and every process gets their paths."""
    variables = stack.stack.launch.passed_through
    wait_for_sets((Path(variables["OSPREY_BASE_SET"]), Path(variables["OSPREY_REPLAY"])), lambda *_: None, limit_s=500)
    assert read_base_exam(Path(variables["OSPREY_BASE_SET"])).num_regions > 100
    assert read_data_config(variables["OSPREY_REPLAY"])[0].type == "OspreyQuestions"


def test_a_killed_worker_comes_back(stack):
    """The supervisor restarts a worker that SIGKILL has ended."""
    killed = stack.supervisor.component_pid("describe")
    os.kill(killed, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while stack.supervisor.component_pid("describe") in (0, killed):
        assert time.monotonic() < deadline, stack.log("describe")
        time.sleep(0.2)
    stack.wait_until_works("describe")


@pytest.mark.parametrize("how", ["crash of the supervisor", "down"])
def test_up_after(stack, how):
    """`up` keeps everything, after `make down` and after the supervisor alone was killed."""
    before = sample(stack)
    if how == "down":
        stack.command("down")
        assert not marked(stack), "processes are left after `make down`"
    else:
        os.kill(int((stack.stack.state.run / "supervisord.pid").read_text()), signal.SIGKILL)
        assert marked(stack), "the children should have outlived their supervisor"
    stack.command("up")
    assert sample(stack) == before


def marked(stack: RunningStack) -> list[int]:
    """Return the processes that carry this stack's mark."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == str(stack.stack.state.path):
                found.append(process.pid)
        except (psutil.Error, OSError):
            continue
    return found
