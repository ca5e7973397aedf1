"""Sets that are made in the background: their progress, and how long a reader waits for them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from registry import sets_in_making
from registry.sets_in_making import WAITING, SetNotMade, maker, making_in, making_of, plan, wait_for_sets

Steps = list[tuple[str, int, int]]


def note(steps: Steps):
    """Collect the reported progress."""
    return lambda *step: steps.append(step)


def killed_maker(folder: Path) -> None:
    """A process that was killed while it made the sets of `folder`."""
    code = (
        "import sys, time; from pathlib import Path; from registry.sets_in_making import maker\n"
        "with maker(Path(sys.argv[1]), 10) as step:\n    step()\n    print('at work', flush=True)\n    time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True)
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == "at work\n"
        assert making_in(folder).state == "making"
        os.kill(child.pid, signal.SIGKILL)


def test_a_set_that_nobody_promised_is_not_waited_for(tmp_path):
    steps: Steps = []
    wait_for_sets((None, tmp_path / "base", tmp_path / "nowhere" / "data.json"), note(steps))
    assert steps == []


def test_who_needs_a_set_waits_until_it_is_made(tmp_path, monkeypatch):
    """From the promise on; the steps tell how far it is."""
    monkeypatch.setattr(sets_in_making, "_WRITE_EVERY_S", 0.0)
    plan(tmp_path)
    assert making_of(tmp_path / "base").text == "waiting for its turn"
    has_begun, may_end = threading.Event(), threading.Event()

    def make() -> None:
        with maker(tmp_path, 4) as step:
            step()
            has_begun.set()
            may_end.wait(30)
            (tmp_path / "replay").mkdir()
            (tmp_path / "replay" / "data.json").write_text("[]")

    thread = threading.Thread(target=make)
    thread.start()
    assert has_begun.wait(10)
    making = making_of(tmp_path / "replay" / "data.json")
    assert (making.state, making.done, making.total) == ("making", 1, 4)
    assert making.text == "being made, 25 %"
    steps: Steps = []

    def told(*step: object) -> None:
        steps.append(step)
        may_end.set()

    wait_for_sets((tmp_path / "replay" / "data.json",), told, limit_s=30)
    thread.join()
    assert steps[0] == (WAITING, 1, 4)
    assert making_in(tmp_path) is None


def test_a_failure_is_told_at_once_and_the_next_promise_forgets_it(tmp_path):
    with pytest.raises(OSError, match="disk"), maker(tmp_path, 4):
        raise OSError("the disk is full")
    assert making_in(tmp_path).is_given_up
    with pytest.raises(SetNotMade, match=r"OSError: the disk is full.*make up"):
        wait_for_sets((tmp_path / "base",), note([]))
    plan(tmp_path)
    assert not making_in(tmp_path).is_given_up


def test_a_killed_maker_is_noticed(tmp_path):
    killed_maker(tmp_path)
    assert making_in(tmp_path).state == "interrupted"
    with pytest.raises(SetNotMade, match="making it: interrupted"):
        wait_for_sets((tmp_path / "base",), note([]))


def test_two_do_not_make_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(sets_in_making, "_LOCK_LIMIT_S", 0.1)
    with maker(tmp_path, 1):
        plan(tmp_path)  # changes nothing
        assert making_in(tmp_path).state == "making"
        with pytest.raises(SetNotMade, match="another process"), maker(tmp_path, 1):
            pass


def test_waiting_has_a_limit(tmp_path, monkeypatch):
    """A reader stops waiting for a slow maker, and for one that never began."""
    with maker(tmp_path, 1), pytest.raises(SetNotMade, match="missing after 0 s: being made"):
        wait_for_sets((tmp_path / "base",), note([]), limit_s=0.0)
    plan(tmp_path)
    monkeypatch.setattr(sets_in_making, "_BEGIN_LIMIT_S", 0.0)
    assert making_in(tmp_path).state == "interrupted"


def test_notes_of_other_releases_and_torn_ones_are_read(tmp_path):
    plan(tmp_path)
    file = tmp_path / "making.json"
    file.write_text(json.dumps({"state": "planned", "at": time.time(), "colour": "blue"}))
    assert making_in(tmp_path).state == "planned"
    file.write_text("")
    assert making_in(tmp_path).state == "interrupted"
