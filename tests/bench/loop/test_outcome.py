"""Claims about goals: they are reached by the figures alone."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from rich.console import Console

from bench.loop.outcome import Outcome, RoundOutcome, fields_table, goal_lines, rounds_table
from bench.loop.tally import Seen


def gate(passed: bool, champion: float, candidate: float) -> dict[str, Any]:
    score = {"champion": {"value": champion}, "candidate": {"value": candidate}}
    base = {"name": "base", "field": None, "passed": passed, "says": "", "detail": {"score": score}}
    return {"passed": passed, "criteria": [base], "champion": "base", "data_version": "1-0"}


def work(wrong: int, version: str = "nano@0") -> tuple[Seen, ...]:
    """Return ten regions that the team's terms affect, `wrong` of them corrected, and ten others that never are."""
    own = [Seen(1, 1, f"r{idx}", True, ("category",), ("category",) * (idx < wrong), version) for idx in range(10)]
    rest = [Seen(1, 1, f"s{idx}", False, ("category",), (), version) for idx in range(10)]
    return (*own, *rest)


def outcome(*, last: int = 4, second: dict[str, Any] | None = None, control: dict[str, Any] | None = None) -> Outcome:
    first = RoundOutcome(work(10), "v2", gate(True, 0.9, 0.895))
    between = RoundOutcome(work(6), "v3", second or gate(True, 0.895, 0.892))
    return Outcome((first, between, RoundOutcome(work(last), None, None)), control or gate(False, 0.9, 0.7))


def test_all_goals_reached() -> None:
    found = outcome()
    assert found.reached
    assert found.reduction_changed == pytest.approx(0.6)
    assert found.base_loss_points == pytest.approx(0.8)  # from the first model to the last that was promoted


@pytest.mark.parametrize(
    ("found", "missed"),
    [
        (outcome(last=5), "corrections_fall"),
        (outcome(second=gate(True, 0.895, 0.889)), "base_set_kept"),  # half a point each round is more than one in all
        (outcome(control=gate(True, 0.9, 0.9)), "control_rejected"),
        (Outcome(outcome().rounds, None), "control_rejected"),
    ],
)
def test_a_missed_goal_is_said(found: Outcome, missed: str) -> None:
    assert [name for name, reached in found.goals().items() if not reached] == [missed]
    assert not found.reached
    assert sum("missed" in line for line in goal_lines(found)) == 1


def test_a_candidate_that_was_kept_out_does_not_count_for_the_base_set() -> None:
    found = outcome(second=gate(False, 0.895, 0.5))
    assert found.base_after == 0.895


def test_table_and_json_hold_every_round() -> None:
    found = outcome(second=gate(False, 0.895, 0.5))
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(rounds_table(found))
    console.print(fields_table(found))
    shown = console.export_text()
    assert "…" not in shown  # it fits into 80 columns
    assert "v2 promoted" in shown
    assert "v3 kept out: base" in shown
    figures = json.loads(json.dumps(found.to_json()))
    assert [each["changed"]["corrections_per_100"] for each in figures["rounds"]] == [100.0, 60.0, 40.0]
    assert figures["control"]["failed"] == ["base"]
