"""Compute the figures of the report from regions: what annotators accepted and corrected. Pure functions."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rapidfuzz.distance import Levenshtein

from job_queue.contracts import ImageRef
from learning.gate.statistics import Bin, Estimate, calibration_error, confidence_bins, mean_with_bounds
from learning.gate.text_similarity import joined, same
from learning.submitted.regions import SubmittedRegion

_SHORT_CHARS = 40  # longer texts are not names, so a changed one is not counted as a confusion
_EDITED_CHARS = 2000  # of longer texts only this many are compared
_NO_MODEL = "unknown version"


@dataclass(frozen=True, slots=True)
class SeenRegion:
    """One submitted region.

    Attributes:
        region: the region.
        image: reference to its image.
        is_blind: the fields were left empty; `region.suggestion` is the answer that was not shown.
        arm: arm of its task in the order of tasks; None: unknown.
    """

    region: SubmittedRegion
    image: ImageRef
    is_blind: bool = False
    arm: str | None = None


@dataclass(frozen=True, slots=True)
class FieldInRound:
    """One field under one model version, over the `n` regions with a suggestion; shares are 0 to 1."""

    field: str
    n: int
    corrected: int
    corrections_per_100: float
    edit_share: float  # mean over all n, 0 for an unchanged field
    edit_share_of_corrected: float | None


@dataclass(frozen=True, slots=True)
class Round:
    """One model version; rounds are ordered by first use."""

    model_version: str
    since: str | None
    regions: int
    corrections_per_100: float  # changed fields per 100 regions with a suggestion
    fields: tuple[FieldInRound, ...]
    seconds_per_region: float | None  # median over annotations
    timed_annotations: int


@dataclass(frozen=True, slots=True)
class Reliability:
    """How often suggestions were accepted, by the model's confidence. `field` None: all fields."""

    field: str | None
    n: int
    calibration_error: float
    bins: tuple[Bin, ...]


@dataclass(frozen=True, slots=True)
class Confusion:
    """How often annotators replaced one short value by another."""

    field: str
    suggested: str
    kept: str
    count: int


@dataclass(frozen=True, slots=True)
class BlindField:
    """Accuracy on regions without a visible suggestion (`right`), and the share of accepted visible ones (`kept`).

    If `kept` is much higher than `right`, annotators accept suggestions without checking them.
    """

    field: str
    blind_n: int
    right: float
    shown_n: int
    kept: float | None


@dataclass(frozen=True, slots=True)
class ArmFigures:
    """Corrections in the tasks of one arm of the order of tasks, over its regions with a suggestion."""

    arm: str
    tasks: int
    regions: int
    corrections_per_100: Estimate


@dataclass(frozen=True, slots=True)
class Mistake:
    """A region with changed fields. `badness`: confidence times edit share, summed over its fields."""

    task: int
    annotation: int
    region: str
    model_version: str
    badness: float
    fields: tuple[tuple[str, str, str, float | None], ...]  # field, suggested, kept, confidence


@dataclass(frozen=True, slots=True)
class Figures:
    """All numbers of the report."""

    counts: Mapping[str, int]
    fields: tuple[str, ...]
    rounds: tuple[Round, ...]
    reliability: tuple[Reliability, ...]
    confusions: tuple[Confusion, ...]
    blind: tuple[BlindField, ...]
    arms: tuple[ArmFigures, ...]
    worst: tuple[Mistake, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def figures_of(seen: Sequence[SeenRegion], *, num_worst: int = 12, num_confusions: int = 15) -> Figures:
    """Compute all figures from the regions of a project; regions without a suggestion are allowed."""
    shown = [each.region for each in seen if not each.is_blind and each.region.suggestion is not None]
    blind = [each.region for each in seen if each.is_blind and each.region.suggestion is not None]
    fields = tuple(sorted({name for region in (*shown, *blind) for name in _names(region)}))
    return Figures(
        counts={
            "tasks": len({each.region.task for each in seen}),
            "annotations": len({each.region.annotation for each in seen}),
            "regions": len(seen),
            "with_suggestion": len(shown),
            "corrected": sum(bool(_changed(region)) for region in shown),
            "drawn_by_hand": sum(each.region.suggestion is None and not each.is_blind for each in seen),
            "blind": sum(each.is_blind for each in seen),
        },
        fields=fields,
        rounds=_rounds(shown, [each.region for each in seen]),
        reliability=_reliability(shown, fields),
        confusions=_confusions((*shown, *blind), num_confusions),
        blind=_blind(blind, shown, fields),
        arms=_arms(seen),
        worst=_worst((*shown, *blind), num_worst),
    )


def _names(region: SubmittedRegion) -> set[str]:
    return {*region.texts, *(region.suggestion or {})}


def edit_share(before: str, after: str) -> float:
    """Return the Levenshtein distance divided by the length of the longer text, 0 to 1."""
    return Levenshtein.normalized_distance(before[:_EDITED_CHARS], after[:_EDITED_CHARS])


def _values(region: SubmittedRegion, name: str) -> tuple[list[str], list[str]]:
    """Return the suggested and the submitted value of a field."""
    return (region.suggestion or {}).get(name, []), region.texts.get(name, [])


def _changed(region: SubmittedRegion) -> list[str]:
    """Return the fields whose submitted value differs from the suggestion by more than formatting."""
    return sorted(name for name in _names(region) if not same(*_values(region, name)))


def _rounds(shown: Sequence[SubmittedRegion], everything: Sequence[SubmittedRegion]) -> tuple[Round, ...]:
    by_version: dict[str, list[SubmittedRegion]] = defaultdict(list)
    for region in shown:
        by_version[region.model_version or _NO_MODEL].append(region)
    sizes = Counter(region.annotation for region in everything)
    rounds = []
    for version, regions in by_version.items():
        fields = tuple(_field(name, regions) for name in sorted({name for each in regions for name in _names(each)}))
        seconds = _seconds_per_region(regions, sizes)
        rounds.append(
            Round(
                model_version=version,
                since=min((region.updated_at for region in regions if region.updated_at), default=None),
                regions=len(regions),
                corrections_per_100=100 * sum(field.corrected for field in fields) / len(regions),
                fields=fields,
                seconds_per_region=statistics.median(seconds) if seconds else None,
                timed_annotations=len(seconds),
            )
        )
    return tuple(sorted(rounds, key=lambda each: (each.since or "", each.model_version)))


def _field(name: str, regions: Iterable[SubmittedRegion]) -> FieldInRound:
    pairs = [_values(region, name) for region in regions if name in _names(region)]
    shares = [0.0 if same(*pair) else edit_share(joined(pair[0]), joined(pair[1])) for pair in pairs]
    corrected = sum(not same(*pair) for pair in pairs)
    return FieldInRound(
        field=name,
        n=len(pairs),
        corrected=corrected,
        corrections_per_100=100 * corrected / len(pairs),
        edit_share=statistics.fmean(shares),
        edit_share_of_corrected=sum(shares) / corrected if corrected else None,
    )


def _seconds_per_region(regions: Iterable[SubmittedRegion], sizes: Mapping[int, int]) -> list[float]:
    """Return one value per annotation: Label Studio's lead time divided by the number of regions."""
    leads = {region.annotation: region.lead_time_s for region in regions}
    return [lead / sizes[annotation] for annotation, lead in leads.items() if lead is not None and lead > 0]


def _reliability(shown: Sequence[SubmittedRegion], fields: Sequence[str]) -> tuple[Reliability, ...]:
    answers = [
        (name, min(max(region.confidence[name], 0.0), 1.0), same(*_values(region, name)))
        for region in shown
        for name in sorted(_names(region))
        if name in region.confidence
    ]
    found = []
    for field in (None, *fields):
        own = [(confidence, kept) for name, confidence, kept in answers if field in (None, name)]
        if own:
            confidences, kept = [pair[0] for pair in own], [pair[1] for pair in own]
            error = calibration_error(confidences, kept)
            found.append(Reliability(field, len(own), error, confidence_bins(confidences, kept)))
    return tuple(found)


def _confusions(regions: Iterable[SubmittedRegion], most: int) -> tuple[Confusion, ...]:
    counts: Counter[tuple[str, str, str]] = Counter()
    for region in regions:
        for name in _changed(region):
            suggested, kept = (joined(values) for values in _values(region, name))
            if suggested and kept and max(len(suggested), len(kept)) <= _SHORT_CHARS:
                counts[name, suggested, kept] += 1
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return tuple(Confusion(*pair, count) for pair, count in ordered[:most])


def _blind(
    blind: Sequence[SubmittedRegion], shown: Sequence[SubmittedRegion], fields: Sequence[str]
) -> tuple[BlindField, ...]:
    found = []
    for field in fields:
        unseen, seen = (
            [same(*_values(region, field)) for region in regions if field in _names(region)]
            for regions in (blind, shown)
        )
        if unseen:
            kept = sum(seen) / len(seen) if seen else None
            found.append(BlindField(field, len(unseen), sum(unseen) / len(unseen), len(seen), kept))
    return tuple(found)


def _arms(seen: Sequence[SeenRegion]) -> tuple[ArmFigures, ...]:
    """Return the figures of both arms of the order of tasks; nothing if regions have only one arm."""
    by_arm: dict[str, list[SubmittedRegion]] = defaultdict(list)
    for each in seen:
        if each.arm is not None and not each.is_blind and each.region.suggestion is not None:
            by_arm[each.arm].append(each.region)
    if len(by_arm) < 2:
        return ()
    return tuple(
        ArmFigures(
            arm=arm,
            tasks=len({region.task for region in regions}),
            regions=len(regions),
            corrections_per_100=mean_with_bounds(
                [100.0 * len(_changed(region)) for region in regions], [str(region.task) for region in regions]
            ),
        )
        for arm, regions in sorted(by_arm.items())
    )


def _worst(regions: Iterable[SubmittedRegion], most: int) -> tuple[Mistake, ...]:
    mistakes = []
    for region in regions:
        fields: list[tuple[str, str, str, float | None]] = []
        for name in _changed(region):
            suggested, kept = (", ".join(values) for values in _values(region, name))
            fields.append((name, suggested, kept, region.confidence.get(name)))
        if fields:
            badness = sum(
                (0.5 if confidence is None else confidence) * edit_share(suggested, kept)
                for _, suggested, kept, confidence in fields
                if suggested  # an empty answer is not counted as a mistake
            )
            version = region.model_version or _NO_MODEL
            mistakes.append(
                Mistake(region.task, region.annotation, region.region, version, round(badness, 4), tuple(fields))
            )
    return tuple(sorted(mistakes, key=lambda each: (-each.badness, each.task, each.annotation, each.region))[:most])
