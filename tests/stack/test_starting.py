"""Claims about waiting for components: one that ends is reported at once, with its log since the start."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace

import pytest

from stack import starting
from stack.components import COMPONENTS, LastingProblem, Stack
from stack.settings import StackError
from stack.starting import Starter
from stack.state import Launch, Secrets, StateFolder
from stack.supervisor import ProcessState

RUNS = ProcessState("RUNNING", 10, 100, "")


class FakeSupervisor:
    """A supervisor that reports the given states of a component in turn, then repeats the last one."""

    def __init__(self, states):
        self._states = {name: itertools.chain(each, itertools.repeat(each[-1])) for name, each in states.items()}

    def start_component(self, name):
        """Do nothing."""

    def process_state(self, name):
        """Return the next state."""
        return next(self._states[name])


def component(name="backend", problem=lambda _: "not yet", start_limit_s=60.0):
    """Return a component with another health check."""
    known = next(each for each in COMPONENTS if each.name == name)
    return replace(known, problem=problem, start_limit_s=start_limit_s)


@pytest.fixture
def stack(tmp_path):
    """Return a stack whose state folder contains the log of an earlier run."""
    state = StateFolder(tmp_path)
    state.create()
    (state.logs / "backend.log").write_text("of an earlier run\n")
    return Stack(state, Launch("", {}, {}), Secrets("a", "b", "c", "d", "e"))


@pytest.mark.parametrize(
    "ended",
    [
        ProcessState("BACKOFF", 0, 100, "Exited too quickly"),
        ProcessState("FATAL", 0, 100, "Exited too quickly"),
        ProcessState("EXITED", 0, 100, "exit status 3"),
        ProcessState("RUNNING", 11, 101, "exit status 3"),  # supervisord has restarted it already
    ],
)
def test_a_process_that_ends_is_reported_at_once(stack, ended):
    starter, waited = Starter(stack, FakeSupervisor({"backend": [RUNS, RUNS, ended]})), component()
    starter.start(waited)
    with (stack.state.logs / "backend.log").open("a") as log:
        log.write("no such setting\n")
    with pytest.raises(StackError) as raised:
        starter.wait(waited, lambda _: None)
    assert f"Backend ended while it started ({ended.ended})" in str(raised.value)
    assert str(raised.value).endswith("backend.log:\nno such setting")


def test_one_that_ends_during_the_wait_for_another_is_reported(stack):
    ended = ProcessState("BACKOFF", 0, 100, "Exited too quickly")
    starter = Starter(stack, FakeSupervisor({"backend": [RUNS, ended], "label-studio": [RUNS]}))
    waited = component("label-studio")
    starter.start(component("backend"))
    starter.start(waited)
    with pytest.raises(StackError, match=r"Backend ended(.|\n)*nothing since this start"):
        starter.wait(waited, lambda _: None)


def test_the_wait_for_a_worker_that_reports_a_lasting_problem_is_short(stack, monkeypatch):
    """The wait goes on for a moment, because the worker tries again; other problems get the whole time limit."""
    monkeypatch.setattr(starting, "_LASTING_S", 0.6)
    problems = iter(["not yet", LastingProblem("no checkpoint"), "not yet", None])
    starter, waited = Starter(stack, FakeSupervisor({"masks": [RUNS]})), component("masks", lambda _: next(problems))
    starter.start(waited)
    starter.wait(waited, lambda _: None)
    waited = component("masks", lambda _: LastingProblem("no checkpoint"))
    with pytest.raises(StackError, match="Worker for masks does not work: no checkpoint"):
        starter.wait(waited, lambda _: None)


def test_the_wait_ends_at_its_limit(stack):
    starter, waited = Starter(stack, FakeSupervisor({"backend": [RUNS]})), component(start_limit_s=0.3)
    starter.start(waited)
    began = time.monotonic()
    with pytest.raises(StackError, match=r"does not work after 0 s \(process RUNNING\): not yet"):
        starter.wait(waited, lambda _: None)
    assert time.monotonic() - began < 5
