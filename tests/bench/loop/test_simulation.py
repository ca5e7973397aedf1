"""`python -m bench.loop` from end to end, with few regions: real Label Studio, webhooks, workers, fine-tunes, gate."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.loop.tally import Seen
from learning.corrections.store import Store
from registry.versions import BASE, Registry
from stack.settings import StackSettings
from stack.state import StateFolder
from stack.supervisor import end_leftovers

REGIONS = 60
ARGUMENTS = ("--rounds", "1", "--regions", str(REGIONS), "--seed", "7", "--steps", "4", "--base-scenes", "2")


def simulated(out: Path) -> tuple[int, dict[str, Any]]:
    """Run the command; return its exit code and its last line."""
    command = [sys.executable, "-m", "bench.loop", *ARGUMENTS, "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr[-4000:]
    return done.returncode, json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_one_round_through_everything_real(tmp_path: Path) -> None:
    if not StackSettings.from_env(os.environ).label_studio_executable.is_file():
        pytest.skip("Label Studio is not installed; `make env` installs it")
    code, result = simulated(tmp_path)
    before, after = result["rounds"]
    assert before["changed"]["regions"] + before["unchanged"]["regions"] >= REGIONS
    assert before["changed"]["corrections_per_100"] > before["unchanged"]["corrections_per_100"] > 0
    assert after["candidate"] is None
    assert result["control"]["passed"] is False
    assert code == (0 if result["reached"] else 1)
    assert "<html" in (tmp_path / "report.html").read_text(encoding="utf-8")

    registry = Registry(tmp_path / "registry")
    assert len(registry.versions()) == 2  # the control and the candidate
    assert registry.champion_name() == (before["candidate"] if before["gate"]["passed"] else BASE)
    with Store.open(f"sqlite:///{tmp_path / 'stack' / 'corrections.db'}") as store:
        stored = {(each.region.task, each.region.region) for each in store.regions(1)}
    lines = [json.loads(line) for idx in (0, 1) for line in (tmp_path / f"round-{idx}.jsonl").read_text().splitlines()]
    seen = [Seen.from_json(each) for line in lines for each in line["seen"]]
    assert {(each.task, each.region) for each in seen} == stored
    assert end_leftovers(StateFolder(tmp_path / "stack")) == 0  # everything was stopped

    again = simulated(tmp_path)[1]
    assert again["rounds"] == result["rounds"]
    assert again["seconds_by_phase"] == result["seconds_by_phase"]  # nothing was done twice
