"""The content of an export before any layout, and its counts for manifest and data card."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from label_config.reader import LabelConfig
from learning.export.categories import category_of, corrected_category
from learning.export.splits import SIDES, Side
from learning.submitted.problems import Problem
from learning.submitted.regions import SubmittedRegion


@dataclass(frozen=True, slots=True)
class Content:
    """What one export is made of, before any layout.

    Attributes:
        config: the project's labeling config.
        regions: all regions that were submitted with a mask.
        taught: the regions that the layouts contain, so that a model can be trained on them.
        problems: what was left out or changed.
        sides: side of the split by file name of the image.
        images: task and displayed address by file name of the image.
        has_images: whether the export contains the images.
    """

    config: LabelConfig
    regions: tuple[SubmittedRegion, ...]
    taught: tuple[SubmittedRegion, ...]
    problems: tuple[Problem, ...]
    sides: Mapping[str, Side]
    images: Mapping[str, tuple[int | None, str]]
    has_images: bool

    def taught_on(self, side: Side) -> list[SubmittedRegion]:
        """Return the regions of `taught` whose image is on this side."""
        return [region for region in self.taught if self.sides[region.image] == side]

    def annotations_on(self, side: Side) -> list[list[SubmittedRegion]]:
        """Return the same regions grouped by annotation."""
        found: dict[tuple[int, int], list[SubmittedRegion]] = {}
        for region in self.taught_on(side):
            found.setdefault((region.task, region.annotation), []).append(region)
        return list(found.values())


def counts_of(content: Content, submitted: Mapping[str, int]) -> dict[str, Any]:
    """Return all counts of an export as plain JSON values.

    Args:
        content: the export.
        submitted: counts of its source: tasks, annotations and skipped annotations.
    """
    config, regions = content.config, content.regions
    return {
        "counts": {
            **submitted,
            "regions": len(regions),
            "parts": sum(region.is_part for region in regions),
            "regions_taught": len(content.taught),
            "regions_without_text": sum(not region.texts for region in regions),
            "regions_suggested": sum(region.suggestion is not None for region in regions),
            "regions_changed": sum(bool(region.changed) for region in regions),
            "hard_negatives": sum(
                not region.is_part and corrected_category(config, region) is not None for region in content.taught
            ),
            "problems": len(content.problems),
        },
        "problems": _counted(problem.kind for problem in content.problems),
        "fields": {field.name: _field_counts(field.name, regions) for field in config.fields},
        "classes": _counted(
            category
            for region in regions
            if not region.is_part and (category := category_of(config, region)) is not None
        ),
        "annotators": _counted(str(region.annotator or "unknown") for region in regions),
        "model_versions": _counted(region.model_version or "none" for region in regions),
        "origins": _counted(region.origin for region in regions),
        "sides": {side: _side_counts(content, side) for side in SIDES},
    }


def _field_counts(name: str, regions: Sequence[SubmittedRegion]) -> dict[str, Any]:
    """Count how often a field has a value, had a suggestion, and was accepted unchanged."""
    suggested = [region for region in regions if region.suggestion is not None and region.suggestion.get(name)]
    accepted = sum(name not in region.changed for region in suggested)
    return {
        "filled": sum(bool(region.texts.get(name)) for region in regions),
        "suggested": len(suggested),
        "accepted": accepted,
        "changed": sum(name in region.changed for region in regions),
        "acceptance": round(accepted / len(suggested), 4) if suggested else None,
    }


def _side_counts(content: Content, side: Side) -> dict[str, int]:
    annotations = content.annotations_on(side)
    return {
        "images": len({region.image for regions in annotations for region in regions}),
        "annotations": len(annotations),
        "regions": sum(map(len, annotations)),
    }


def _counted(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))
