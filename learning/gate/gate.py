"""Compare a candidate with the champion: every criterion with its numbers, its bound and whether it passed.

These are pure functions. A candidate passes if all criteria pass:

    better      more correct fields on the held-out set of at least ten images: the lower bound of the paired
                difference is above 0
    field       no field is clearly worse: the upper bound of its difference is at least minus one point
    region      the answers fit their own regions more than five points better than regions of other images
    base        on the frozen base set the candidate loses at most one point, compared with the champion and with the
                best earlier champion, because many small losses add up
    calibration the calibration error of a field is small, or not much larger than the champion's
    valid       every answer to a field with a closed list is one of its choices, and no question failed
    latency     the candidate is at most a tenth slower than the champion

Few corrections have no easier rule: an improvement that could be chance does not pass. A person can still promote the
candidate (`osprey promote --force`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from learning.gate.evaluate import FieldOutcome, Latency
from learning.gate.region_fit import fit_of
from learning.gate.statistics import Estimate, calibration_error, mean_with_bounds

_BY_DEGREES = "detailed_description"  # role of fields with many correct wordings: scored by similarity


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits of the criteria, as shares of 1; one point is 0.01."""

    min_images: int = 10  # with fewer images the bootstrap bounds are too narrow
    field_loss: float = 0.01
    region_gain: float = 0.05
    base_loss: float = 0.01
    calibration_error: float = 0.10
    calibration_loss: float = 0.03
    calibration_min_answers: int = 30  # with fewer answers the calibration error is mostly noise
    latency_ratio: float = 1.10


@dataclass(frozen=True, slots=True)
class Criterion:
    """One comparison.

    Attributes:
        name: of the criterion, see the module's list.
        passed: whether the candidate meets it.
        value: the number that is compared with `bound`; None if there was nothing to compare.
        bound: the limit of `value`.
        says: the result as one sentence.
        field: the field that it is about; None: all fields.
        detail: the numbers behind `value`.
    """

    name: str
    passed: bool
    value: float | None
    bound: float
    says: str
    field: str | None = None
    detail: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The results of all criteria."""

    criteria: tuple[Criterion, ...]

    @property
    def passed(self) -> bool:
        """Whether all criteria passed, so the candidate may become the champion."""
        return all(criterion.passed for criterion in self.criteria)

    def to_json(self) -> dict[str, Any]:
        """Return the form that version.json stores."""
        return {"passed": self.passed, "criteria": [asdict(criterion) for criterion in self.criteria]}


@dataclass(frozen=True, slots=True)
class Paired:
    """The outcomes of both models on the same questions."""

    candidate: tuple[FieldOutcome, ...]
    champion: tuple[FieldOutcome, ...]

    def __post_init__(self) -> None:
        """Check that both models were asked the same questions.

        Raises:
            ValueError: the outcomes are of different questions.
        """
        asked = [
            [(each.image, each.annotation, each.region, each.field) for each in side]
            for side in (self.candidate, self.champion)
        ]
        if asked[0] != asked[1]:
            raise ValueError("candidate and champion were asked different questions; evaluate both on the same exam")

    def fields(self) -> tuple[str, ...]:
        """Return the names of the fields in order of appearance."""
        return tuple(dict.fromkeys(each.field for each in self.candidate))

    def of(self, name: str) -> Paired:
        """Return the outcomes of one field."""
        candidate, champion = (
            tuple(each for each in side if each.field == name) for side in (self.candidate, self.champion)
        )
        return Paired(candidate, champion)

    def gain(self, score: Callable[[FieldOutcome], float]) -> Estimate:
        """Return the mean of candidate minus champion, with bounds."""
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
    """Compare a candidate with the champion.

    Args:
        held_out: outcomes on the held-out side of the data version.
        base: outcomes on the frozen base set; None: there is none, and the candidate cannot pass.
        latency: of both models on the same images.
        bounds: limits of the criteria.
        best_before: the highest score on the base set that a champion had, by `share_right`.
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


def _right(outcome: FieldOutcome) -> float:
    return float(outcome.is_right)


def _score(outcome: FieldOutcome) -> float:
    """Return 1 or 0 for names and phrases; for descriptions of several facts the similarity, 0 to 1."""
    return outcome.similarity if outcome.role == _BY_DEGREES else _right(outcome)


def _similarity(outcome: FieldOutcome) -> float:
    return outcome.similarity


def _compared(paired: Paired) -> dict[str, Any]:
    """Return accuracy, score and similarity of both models, with their paired differences."""
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
    wanted = f"the gate needs at least {bounds.min_images} (OSPREY_FINETUNE_HELD_OUT)"
    if not paired.candidate:
        says = f"no image is held out, {wanted}"
        return Criterion("better", passed=False, value=None, bound=0.0, says=says)
    gain = paired.gain(_score)
    are_few = gain.clusters < bounds.min_images
    return Criterion(
        "better",
        passed=gain.low > 0 and not are_few,
        value=gain.low,
        bound=0.0,
        says=f"correct answers {_change(gain)}" + (f"; {gain.clusters} held-out images, {wanted}" if are_few else ""),
        detail=_compared(paired),
    )


def _fields(paired: Paired, bounds: Bounds) -> Iterator[Criterion]:
    for name in paired.fields():
        own = paired.of(name)
        gain = own.gain(_score)
        says = f"correct answers {_change(gain)}"
        passed = gain.high >= -bounds.field_loss or gain.clusters < bounds.min_images
        yield Criterion("field", passed, gain.high, -bounds.field_loss, says, name, _compared(own))


def _region(outcomes: Sequence[FieldOutcome], bounds: Bounds) -> Criterion:
    fit, bound = fit_of(outcomes, by_words=_BY_DEGREES), bounds.region_gain
    if fit.gain is None or fit.most < bound:
        says = "not applicable: regions of other images have the same answers"
        return Criterion("region", passed=True, value=None, bound=bound, says=says)
    says = f"fit to the own region compared with others {_change(fit.gain)}"
    return Criterion("region", fit.gain.low > bound, fit.gain.low, bound, says, detail=asdict(fit))


def _base(paired: Paired | None, bounds: Bounds, best_before: float | None) -> Criterion:
    if paired is None or not paired.candidate:
        says = "there is no base set; set OSPREY_BASE_SET to an export version"
        return Criterion("base", passed=False, value=None, bound=-bounds.base_loss, says=says)
    gain = paired.gain(_score)
    share = sum(_score(each) for each in paired.candidate) / len(paired.candidate)
    since_best = gain.value if best_before is None else min(gain.value, share - best_before)
    drift = f"; {_points(since_best)} compared with the best champion" if since_best < gain.value - 5e-4 else ""
    return Criterion(
        "base",
        passed=since_best >= -bounds.base_loss - 1e-9,
        value=since_best,
        bound=-bounds.base_loss,
        says=f"correct answers on the base set {_change(gain)}{drift}",
        detail={**_compared(paired), "fields": {name: _compared(paired.of(name)) for name in paired.fields()}},
    )


def share_right(verdict: Mapping[str, Any], criterion: str, side: str) -> float | None:
    """Return the score of one model from a stored verdict; None if it has none.

    Args:
        verdict: as version.json stores it, possibly by another release.
        criterion: "better" for the held-out set, "base" for the base set.
        side: "candidate" or "champion".
    """
    criteria: Sequence[Mapping[str, Any]] = verdict.get("criteria") or ()
    detail = next((each.get("detail") or {} for each in criteria if each.get("name") == criterion), {})
    value = detail.get("score", {}).get(side, {}).get("value")
    return None if value is None else float(value)


def _calibration(paired: Paired, bounds: Bounds) -> Iterator[Criterion]:
    for name in paired.fields():
        own = paired.of(name)
        if len(own.candidate) < bounds.calibration_min_answers or own.candidate[0].role == _BY_DEGREES:
            continue  # confidence is the chance that an answer is correct, not its similarity
        candidate, champion = (
            calibration_error([each.confidence for each in side], [each.is_right for each in side])
            for side in (own.candidate, own.champion)
        )
        bound = max(bounds.calibration_error, champion + bounds.calibration_loss)
        says = f"calibration error {candidate:.3f}, champion {champion:.3f}"
        detail = {"candidate": candidate, "champion": champion, "n": len(own.candidate)}
        yield Criterion("calibration", candidate <= bound, candidate, bound, says, name, detail)


def _valid(outcomes: Sequence[FieldOutcome]) -> Criterion:
    closed = [each for each in outcomes if each.is_closed]
    wrong = [each for each in outcomes if each.failure is not None or (each.is_closed and not each.is_valid)]
    share = 1 - len(wrong) / len(outcomes) if outcomes else 0.0
    says = f"{len(wrong)} of {len(outcomes)} answers failed or are not in the list ({len(closed)} have a list)"
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
