"""Candidate against champion: every criterion with its numbers, its bound and whether it passed. Pure.

A candidate passes when all criteria do:

    better      more fields right on the held-out set of at least ten images: the lower bound of the paired
                difference is above 0
    field       no field is surely worse: the upper bound of its difference is not below minus one point
    region      the answers fit their regions: by more than five points better than regions of other images
    base        on the frozen base set at most one point is lost, against the champion and against the best champion
                before it: many small losses would add up
    calibration the calibration error of a field is small, or not much larger than the champion's
    valid       every answer to a closed list is one of its choices, and nothing failed
    latency     at most a tenth slower than the champion

There is no easier rule for few corrections: what cannot be told from chance stays out, and a person may still
promote it (`osprey promote --force`).

Neighbours: `learning/gate/evaluate.py` (the outcomes), `learning/gate/run_gate.py` (loads both models and asks).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from learning.gate.evaluate import Latency, Outcome
from learning.gate.region_fit import fit_of
from learning.gate.statistics import Estimate, calibration_error, mean_with_bounds

_BY_DEGREES = "detailed_description"  # the role of a field: one of its true wordings is seldom said twice


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a candidate may cost. Shares of 1; one point is 0.01."""

    min_images: int = 10  # bounds from fewer images are narrower than chance
    field_loss: float = 0.01
    region_gain: float = 0.05
    base_loss: float = 0.01
    calibration_error: float = 0.10
    calibration_loss: float = 0.03
    calibration_min_answers: int = 30  # fewer say nothing about calibration
    latency_ratio: float = 1.10


@dataclass(frozen=True, slots=True)
class Criterion:
    """One comparison. `value` must be on the right side of `bound`; `detail` holds the numbers behind it."""

    name: str
    passed: bool
    value: float | None
    bound: float
    says: str
    field: str | None = None
    detail: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Verdict:
    """All criteria; passed when each is."""

    criteria: tuple[Criterion, ...]

    @property
    def passed(self) -> bool:
        """Whether the candidate may become the champion."""
        return all(criterion.passed for criterion in self.criteria)

    def to_json(self) -> dict[str, Any]:
        """As version.json holds it."""
        return {"passed": self.passed, "criteria": [asdict(criterion) for criterion in self.criteria]}


@dataclass(frozen=True, slots=True)
class Paired:
    """The outcomes of both models on the same questions."""

    candidate: tuple[Outcome, ...]
    champion: tuple[Outcome, ...]

    def __post_init__(self) -> None:
        """Refuse outcomes of different exams."""
        asked = [
            [(each.image, each.annotation, each.region, each.field) for each in side]
            for side in (self.candidate, self.champion)
        ]
        if asked[0] != asked[1]:
            raise ValueError("candidate and champion were asked different questions; examine both with the same exam")

    def fields(self) -> tuple[str, ...]:
        """Names of the fields, as they come."""
        return tuple(dict.fromkeys(each.field for each in self.candidate))

    def of(self, name: str) -> Paired:
        """The outcomes of one field."""
        candidate, champion = (
            tuple(each for each in side if each.field == name) for side in (self.candidate, self.champion)
        )
        return Paired(candidate, champion)

    def gain(self, score: Callable[[Outcome], float]) -> Estimate:
        """Mean of candidate minus champion, with bounds."""
        pairs = zip(self.candidate, self.champion, strict=True)
        return mean_with_bounds([score(a) - score(b) for a, b in pairs], [each.image for each in self.candidate])


def judge(
    held_out: Paired,
    base: Paired | None,
    latency: Latency,
    bounds: Bounds | None = None,
    *,
    best_before: float | None = None,
) -> Verdict:
    """Hold a candidate against the champion.

    Args:
        held_out: of the data version's held-out side.
        base: of the frozen base set; None: there is none, and the candidate cannot pass.
        latency: of both on the same images.
        bounds: what it may cost.
        best_before: the highest share of the base set that a champion has had, as `share_right` tells it.
    """
    bounds = bounds or Bounds()
    return Verdict(
        (
            _better(held_out, bounds),
            *_fields(held_out, bounds),
            _region(held_out.candidate, bounds),
            _base(base, bounds, best_before),
            *_calibration(held_out, bounds),
            _valid((*held_out.candidate, *(base.candidate if base else ()))),
            _latency(latency, bounds),
        )
    )


def _right(outcome: Outcome) -> float:
    return float(outcome.is_right)


def _score(outcome: Outcome) -> float:
    """Names and phrases are right or wrong; a description of several facts is right by degrees, in its common words."""
    return outcome.similarity if outcome.role == _BY_DEGREES else _right(outcome)


def _similarity(outcome: Outcome) -> float:
    return outcome.similarity


def _compared(paired: Paired) -> dict[str, Any]:
    """Shares of fields right and mean similarity of both models, each and as a paired difference."""
    if not paired.candidate:
        return {}
    images = [each.image for each in paired.candidate]
    return {
        "exact": {
            "candidate": asdict(mean_with_bounds([_right(each) for each in paired.candidate], images)),
            "champion": asdict(mean_with_bounds([_right(each) for each in paired.champion], images)),
            "gain": asdict(paired.gain(_right)),
        },
        "score": {
            "candidate": asdict(mean_with_bounds([_score(each) for each in paired.candidate], images)),
            "champion": asdict(mean_with_bounds([_score(each) for each in paired.champion], images)),
            "gain": asdict(paired.gain(_score)),
        },
        "similar_words": {
            "candidate": asdict(mean_with_bounds([each.similarity for each in paired.candidate], images)),
            "champion": asdict(mean_with_bounds([each.similarity for each in paired.champion], images)),
            "gain": asdict(paired.gain(_similarity)),
        },
    }


def _better(paired: Paired, bounds: Bounds) -> Criterion:
    wanted = f"at least {bounds.min_images} must be held out (OSPREY_FINETUNE_HELD_OUT)"
    if not paired.candidate:
        says = f"no image is held out to compare on, {wanted}"
        return Criterion("better", passed=False, value=None, bound=0.0, says=says)
    gain = paired.gain(_score)
    are_few = gain.clusters < bounds.min_images
    return Criterion(
        "better",
        passed=gain.low > 0 and not are_few,
        value=gain.low,
        bound=0.0,
        says=f"answers right {_change(gain)}" + (f"; {gain.clusters} images are too few, {wanted}" if are_few else ""),
        detail=_compared(paired),
    )


def _fields(paired: Paired, bounds: Bounds) -> Iterator[Criterion]:
    for name in paired.fields():
        own = paired.of(name)
        gain = own.gain(_score)
        says = f"answers right {_change(gain)}"
        passed = gain.high >= -bounds.field_loss or gain.clusters < bounds.min_images
        yield Criterion("field", passed, gain.high, -bounds.field_loss, says, name, _compared(own))


def _region(outcomes: Sequence[Outcome], bounds: Bounds) -> Criterion:
    fit, bound = fit_of(outcomes, by_words=_BY_DEGREES), bounds.region_gain
    if fit.gain is None or fit.most < bound:
        says = "regions of other images have the same answers: nothing to tell apart"
        return Criterion("region", passed=True, value=None, bound=bound, says=says)
    says = f"against other regions' answers {_change(fit.gain)}"
    return Criterion("region", fit.gain.low > bound, fit.gain.low, bound, says, detail=asdict(fit))


def _base(paired: Paired | None, bounds: Bounds, best_before: float | None) -> Criterion:
    if paired is None or not paired.candidate:
        says = "there is no base set; OSPREY_BASE_SET names an export version"
        return Criterion("base", passed=False, value=None, bound=-bounds.base_loss, says=says)
    gain = paired.gain(_score)
    share = sum(_score(each) for each in paired.candidate) / len(paired.candidate)
    since_best = gain.value if best_before is None else min(gain.value, share - best_before)
    drift = f"; {_points(since_best)} since the best champion" if since_best < gain.value - 5e-4 else ""
    return Criterion(
        "base",
        passed=since_best >= -bounds.base_loss - 1e-9,
        value=since_best,
        bound=-bounds.base_loss,
        says=f"answers right on the base set {_change(gain)}{drift}",
        detail={**_compared(paired), "fields": {name: _compared(paired.of(name)) for name in paired.fields()}},
    )


def share_right(verdict: Mapping[str, Any], criterion: str, side: str) -> float | None:
    """Which share was right, from a verdict as version.json holds it; None where nothing was asked.

    Args:
        verdict: of the gate.
        criterion: "better" for the held-out set, "base" for the base set.
        side: "candidate" or "champion".
    """
    detail: Mapping[str, Any] = next((e["detail"] for e in verdict["criteria"] if e["name"] == criterion), {})
    return float(detail["score"][side]["value"]) if "score" in detail else None


def _calibration(paired: Paired, bounds: Bounds) -> Iterator[Criterion]:
    for name in paired.fields():
        own = paired.of(name)
        if len(own.candidate) < bounds.calibration_min_answers or own.candidate[0].role == _BY_DEGREES:
            continue  # confidence says how likely an answer is right, not by how much
        candidate, champion = (
            calibration_error([each.confidence for each in side], [each.is_right for each in side])
            for side in (own.candidate, own.champion)
        )
        bound = max(bounds.calibration_error, champion + bounds.calibration_loss)
        says = f"calibration error {candidate:.3f}, champion {champion:.3f}"
        detail = {"candidate": candidate, "champion": champion, "n": len(own.candidate)}
        yield Criterion("calibration", candidate <= bound, candidate, bound, says, name, detail)


def _valid(outcomes: Sequence[Outcome]) -> Criterion:
    closed = [each for each in outcomes if each.is_closed]
    wrong = [each for each in outcomes if each.failure is not None or (each.is_closed and not each.is_valid)]
    share = 1 - len(wrong) / len(outcomes) if outcomes else 0.0
    says = f"{len(wrong)} of {len(outcomes)} answers failed or not in their list ({len(closed)} had one)"
    examples = [
        {"image": e.image, "region": e.region, "field": e.field, "why": e.failure or e.given} for e in wrong[:5]
    ]
    return Criterion("valid", bool(outcomes) and not wrong, share, 1.0, says, detail={"examples": examples})


def _latency(latency: Latency, bounds: Bounds) -> Criterion:
    says = f"{latency.candidate_s:.3f} s per image, champion {latency.champion_s:.3f} s ({latency.clock} time)"
    passed = latency.ratio <= bounds.latency_ratio
    return Criterion("latency", passed, latency.ratio, bounds.latency_ratio, says, detail=asdict(latency))


def _change(gain: Estimate) -> str:
    return f"{_points(gain.value)} ({_points(gain.low)} to {_points(gain.high)}; {gain.n} answers)"


def _points(share: float) -> str:
    return f"{100 * share:+.1f} points"
