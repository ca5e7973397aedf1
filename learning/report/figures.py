"""What people did with the model's words -> the figures of the report, plain and JSON. Pure.

Neighbours: `learning/report/report.py` brings the regions, `learning/report/page.py` draws the figures.
"""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from job_queue.contracts import ImageRef
from learning.gate.statistics import Bin, Estimate, calibration_error, confidence_bins, mean_with_bounds
from learning.gate.text_similarity import edit_share, joined, same
from learning.submitted.regions import SubmittedRegion

_SHORT_CHARS = 40  # a pair of longer texts is no confusion of two names
_NO_MODEL = "no version noted"


@dataclass(frozen=True, slots=True)
class SeenRegion:
    """One submitted region. `is_blind`: the person saw no words, `suggestion` is what the model would have said.

    `arm` is the arm of the queue; None: nobody knows.
    """

    region: SubmittedRegion
    image: ImageRef
    is_blind: bool = False
    arm: str | None = None


@dataclass(frozen=True, slots=True)
class FieldInRound:
    """One field under one model version. `n` regions had a suggestion; shares are of 1."""

    field: str
    n: int
    corrected: int
    corrections_per_100: float
    edit_share: float  # mean over all n; 0 where nothing was changed
    edit_share_of_corrected: float | None


@dataclass(frozen=True, slots=True)
class Round:
    """One model version in the order of its first use."""

    model_version: str
    since: str | None
    regions: int
    corrections_per_100: float  # changed fields over all fields, per 100 regions with a suggestion
    fields: tuple[FieldInRound, ...]
    seconds_per_region: float | None  # median over annotations
    timed_annotations: int


@dataclass(frozen=True, slots=True)
class Reliability:
    """How often words were kept, by the confidence the model had in them. `field` None: all of them."""

    field: str | None
    n: int
    calibration_error: float
    bins: tuple[Bin, ...]


@dataclass(frozen=True, slots=True)
class Confusion:
    """What the model called one thing and people another, how often."""

    field: str
    suggested: str
    kept: str
    count: int


@dataclass(frozen=True, slots=True)
class BlindField:
    """Accuracy on regions without suggestions beside the share kept where they were shown.

    `kept` above `right` by much: people nod.
    """

    field: str
    blind_n: int
    right: float
    shown_n: int
    kept: float | None


@dataclass(frozen=True, slots=True)
class ArmFigures:
    """What the tasks of one arm of the queue had to teach. `corrections_per_100` of its regions with a suggestion."""

    arm: str
    tasks: int
    regions: int
    corrections_per_100: Estimate


@dataclass(frozen=True, slots=True)
class Mistake:
    """A region with changed words. `badness`: confidence times edit share, summed over its fields."""

    task: int
    annotation: int
    region: str
    model_version: str
    badness: float
    fields: tuple[tuple[str, str, str, float | None], ...]  # field, suggested, kept, confidence


@dataclass(frozen=True, slots=True)
class Figures:
    """Everything the report shows."""

    counts: Mapping[str, int]
    fields: tuple[str, ...]
    rounds: tuple[Round, ...]
    reliability: tuple[Reliability, ...]
    confusions: tuple[Confusion, ...]
    blind: tuple[BlindField, ...]
    arms: tuple[ArmFigures, ...]
    worst: tuple[Mistake, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def figures_of(seen: Sequence[SeenRegion], *, num_worst: int = 12, num_confusions: int = 15) -> Figures:
    """All figures of a project's regions; none of them needs a suggestion to exist."""
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


def _words(region: SubmittedRegion, name: str) -> tuple[list[str], list[str]]:
    """Suggested and kept."""
    return (region.suggestion or {}).get(name, []), region.texts.get(name, [])


def _changed(region: SubmittedRegion) -> list[str]:
    return sorted(name for name in _names(region) if not same(*_words(region, name)))


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
    pairs = [_words(region, name) for region in regions if name in _names(region)]
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
    """One value per annotation: Label Studio's lead time over its regions (it has no time per region)."""
    leads = {region.annotation: region.lead_time_s for region in regions}
    return [lead / sizes[annotation] for annotation, lead in leads.items() if lead is not None and lead > 0]


def _reliability(shown: Sequence[SubmittedRegion], fields: Sequence[str]) -> tuple[Reliability, ...]:
    answers = [
        (name, min(max(region.confidence[name], 0.0), 1.0), same(*_words(region, name)))
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
            suggested, kept = (joined(words) for words in _words(region, name))
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
            [same(*_words(region, field)) for region in regions if field in _names(region)]
            for regions in (blind, shown)
        )
        if unseen:
            kept = sum(seen) / len(seen) if seen else None
            found.append(BlindField(field, len(unseen), sum(unseen) / len(unseen), len(seen), kept))
    return tuple(found)


def _arms(seen: Sequence[SeenRegion]) -> tuple[ArmFigures, ...]:
    """Both arms of the queue; nothing where there are not two to compare."""
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
        fields = [
            (name, ", ".join(_words(region, name)[0]), ", ".join(_words(region, name)[1]), region.confidence.get(name))
            for name in _changed(region)
        ]
        if fields:
            badness = sum(
                (0.5 if confidence is None else confidence) * edit_share(suggested, kept)
                for _, suggested, kept, confidence in fields
                if suggested  # nothing said is no mistake of words
            )
            version = region.model_version or _NO_MODEL
            mistakes.append(
                Mistake(region.task, region.annotation, region.region, version, round(badness, 4), tuple(fields))
            )
    return tuple(sorted(mistakes, key=lambda each: (-each.badness, each.task, each.annotation, each.region))[:most])
