"""Figures of all rounds of a simulation, whether its goals are reached, tables and the JSON line. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from bench.loop.tally import Seen, Tally, reduction, split_tally
from learning.gate.gate import share_right
from learning.report.version_history import failed_criteria

LEAST_REDUCTION = 0.60
MOST_BASE_LOSS_POINTS = 1.0
_ROUNDING = 1e-9


@dataclass(frozen=True)
class RoundOutcome:
    """One round of annotation, and the candidate that was trained after it (None after the last).

    `gate` is its verdict as the registry holds it.
    """

    seen: tuple[Seen, ...]
    candidate: str | None
    gate: Mapping[str, Any] | None

    @property
    def changed(self) -> Tally:
        """Counts of the regions that the team's own terms affect."""
        return split_tally(self.seen)[0]

    @property
    def unchanged(self) -> Tally:
        """Counts of all other regions."""
        return split_tally(self.seen)[1]

    @property
    def model_versions(self) -> tuple[str, ...]:
        """The models that answered: one, unless a worker switched late."""
        return tuple(sorted({each.model_version for each in self.seen}))


@dataclass(frozen=True)
class Outcome:
    """All rounds, and the verdict on the control that was trained on shuffled corrections (None without control)."""

    rounds: tuple[RoundOutcome, ...]
    control: Mapping[str, Any] | None

    @property
    def reduction_changed(self) -> float:
        """By what share corrections fell from round 0 to the last, 0 to 1."""
        return reduction(self.rounds[0].changed, self.rounds[-1].changed)

    @property
    def reduction_unchanged(self) -> float:
        """The same for the other regions."""
        return reduction(self.rounds[0].unchanged, self.rounds[-1].unchanged)

    @property
    def base_before(self) -> float | None:
        """Share of right answers of the first model on the base set, as the gate counts them."""
        gates = [each.gate for each in self.rounds if each.gate is not None]
        return share_right(gates[0], "base", "champion") if gates else None

    @property
    def base_after(self) -> float | None:
        """The same for the model that serves at the end: the last candidate that passed, or the first model."""
        passed = [each.gate for each in self.rounds if each.gate is not None and each.gate["passed"]]
        return share_right(passed[-1], "base", "candidate") if passed else self.base_before

    @property
    def base_loss_points(self) -> float | None:
        """By how many percentage points the share of right answers on the base set fell."""
        before, after = self.base_before, self.base_after
        return None if before is None or after is None else 100 * (before - after)

    def goals(self) -> dict[str, bool]:
        """Return for each goal whether it is reached."""
        loss = self.base_loss_points
        return {
            "corrections_fall": self.reduction_changed >= LEAST_REDUCTION - _ROUNDING,
            "base_set_kept": loss is not None and loss <= MOST_BASE_LOSS_POINTS + _ROUNDING,
            "control_rejected": self.control is not None and not self.control["passed"],
        }

    @property
    def reached(self) -> bool:
        """Whether all goals are reached."""
        return all(self.goals().values())

    def to_json(self) -> dict[str, Any]:
        """Return all figures: shares of right answers in percent, losses in percentage points."""
        loss = self.base_loss_points
        return {
            "rounds": [_round_json(idx, each) for idx, each in enumerate(self.rounds)],
            "reduction_changed_percent": round(100 * self.reduction_changed, 1),
            "reduction_unchanged_percent": round(100 * self.reduction_unchanged, 1),
            "base_set_right_percent": {"before": _percent(self.base_before), "after": _percent(self.base_after)},
            "base_set_loss_points": None if loss is None else round(loss, 2),
            "control": None if self.control is None else _verdict_json(self.control),
            "goals": self.goals(),
            "reached": self.reached,
        }


def rounds_table(outcome: Outcome) -> Table:
    """Make a table with a row per round."""
    table = Table(title="Corrections per 100 regions")
    table.add_column("Round")
    table.add_column("Model")
    for header in ("Team's own terms", "The rest"):
        table.add_column(header, justify="right")
    table.add_column("Then")
    for idx, each in enumerate(outcome.rounds):
        models = ", ".join(name.partition("@")[0] for name in each.model_versions)
        shown = (f"{side.per_100:.1f} ({side.regions} regions)" for side in (each.changed, each.unchanged))
        table.add_row(str(idx), models, *shown, _then(each))
    return table


def fields_table(outcome: Outcome) -> Table:
    """Make the same table by field: the team's terms and the rest."""
    fields = sorted({name for each in outcome.rounds for name in (*each.changed.fields, *each.unchanged.fields)})
    table = Table(title="By field, the team's own terms / the rest")
    table.add_column("Round")
    for name in fields:
        table.add_column(name.replace("_", " "), justify="right")
    for idx, each in enumerate(outcome.rounds):
        own, rest = each.changed, each.unchanged
        table.add_row(str(idx), *(f"{own.field_per_100(name):.0f} / {rest.field_per_100(name):.0f}" for name in fields))
    return table


def goal_lines(outcome: Outcome) -> list[str]:
    """Return the three sentences under the table."""
    reached, loss = outcome.goals(), outcome.base_loss_points
    base = "was not measured" if loss is None else f"lost {loss:+.2f} points (at most {MOST_BASE_LOSS_POINTS:.0f})"
    if outcome.control is None:
        control = "was not run"
    else:
        control = (
            "passed the gate"
            if outcome.control["passed"]
            else f"failed the gate: {', '.join(failed_criteria(outcome.control))}"
        )
    sentences = {
        "corrections_fall": f"corrections of the team's own terms fell by {100 * outcome.reduction_changed:.1f} % "
        f"(at least {100 * LEAST_REDUCTION:.0f} %)",
        "base_set_kept": f"the frozen base set {base}",
        "control_rejected": f"the control with shuffled corrections {control}",
    }
    return [f"[{'green' if reached[name] else 'red'}]{'reached' if reached[name] else 'missed '}[/] {line}"
            for name, line in sentences.items()]  # fmt: skip


def _then(each: RoundOutcome) -> str:
    if each.gate is None:
        return ""
    return (
        f"{each.candidate} promoted"
        if each.gate["passed"]
        else f"{each.candidate} kept out: {', '.join(failed_criteria(each.gate))}"
    )


def _percent(share: float | None) -> float | None:
    return None if share is None else round(100 * share, 2)


def _round_json(idx: int, each: RoundOutcome) -> dict[str, Any]:
    return {
        "round": idx,
        "model_versions": list(each.model_versions),
        "changed": each.changed.to_json(),
        "unchanged": each.unchanged.to_json(),
        "candidate": each.candidate,
        "gate": None if each.gate is None else _verdict_json(each.gate),
    }


def _verdict_json(gate: Mapping[str, Any]) -> dict[str, Any]:
    criteria: Sequence[Mapping[str, Any]] = gate["criteria"]
    return {
        "passed": gate["passed"],
        "champion": gate.get("champion"),
        "data_version": gate.get("data_version"),
        "failed": list(failed_criteria(gate)),
        "says": {f"{each['name']} {each['field'] or ''}".strip(): each["says"] for each in criteria},
    }
