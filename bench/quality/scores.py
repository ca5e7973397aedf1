"""Compare each answer with its scene's ground truth; the table of all measures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bench.service.annotator_page import RegionAnswer
from demo.scenes import COLORS, MATERIALS, Scene, SceneObject, ScenePart
from demo.scenes.grammar import detailed_facts, is_short_description

Kind = Literal["object", "part"]


@dataclass(frozen=True)
class Measure:
    """One row of the table: `scores` key, title, and the value to reach (None: for information)."""

    key: str
    title: str
    floor: float | None


MEASURES: tuple[Measure, ...] = (
    Measure("object_iou", "mask of an object, mean IoU", 0.90),
    Measure("part_iou", "mask of a part, mean IoU, best of three granularities", 0.80),
    Measure("object_category", "category, exact", 0.95),
    Measure("part_name", "part, exact", 0.90),
    Measure("color", "colour among the attributes", 0.90),
    Measure("material", "material among the attributes", 0.90),
    Measure("object_short", "short description, true by the grammar", 0.85),
    Measure("object_detailed", "detailed: category, colour and one true relation", 0.85),
    Measure("part_category", "category of a part's object, exact", None),
    Measure("part_short", "short description of a part", None),
    Measure("part_detailed", "detailed description of a part", None),
    Measure("object_color", "colour of an object", None),
    Measure("object_material", "material of an object", None),
    Measure("part_color", "colour of a part", None),
    Measure("part_material", "material of a part", None),
)


@dataclass(frozen=True)
class Row:
    """A measure's mean over `count` regions."""

    measure: Measure
    value: float
    count: int

    @property
    def reached(self) -> bool:
        """Whether the floor is met; a row without one always is."""
        return self.measure.floor is None or self.value >= self.measure.floor


def mask_iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Compute intersection over union; 1 for two empty masks.

    Raises:
        ValueError: the masks differ in size.
    """
    if a.shape != b.shape:
        raise ValueError(f"expected two masks of one picture, got {a.shape} and {b.shape}")
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 1.0


def score_object(scene: Scene, thing: SceneObject, answer: RegionAnswer | None) -> dict[str, float]:
    """Score the answer to a click on an object, 0 to 1; no answer scores 0 everywhere."""
    texts = _text_scores(scene, thing, answer)
    return {
        "object_iou": mask_iou(answer.mask, thing.mask) if answer else 0.0,
        "object_category": float(answer is not None and _same(answer.text("category"), thing.category)),
        **{f"object_{key}": value for key, value in texts.items()},
        "color": texts["color"],
        "material": texts["material"],
    }


def score_part(scene: Scene, part: ScenePart, answers: Sequence[RegionAnswer]) -> dict[str, float]:
    """Score clicks on one spot of a part: the mask of any answer, the fields of the best nested one.

    An answer is of a part when it is nested under an object. Without such an answer, the mask of the object counts as
    the part's mask, and every field scores 0.
    """
    nested = [answer for answer in answers if answer.parent_id is not None]
    best = max(nested, key=lambda answer: mask_iou(answer.mask, part.mask), default=None)
    texts = _text_scores(scene, part, best)
    category = scene.objects[part.object_idx].category
    return {
        "part_iou": max((mask_iou(answer.mask, part.mask) for answer in answers), default=0.0),
        "part_category": float(best is not None and _same(best.text("category"), category)),
        "part_name": float(best is not None and _same(best.text("part"), part.name)),
        **{f"part_{key}": value for key, value in texts.items()},
        "color": texts["color"],
        "material": texts["material"],
    }


def table(scores: Sequence[Mapping[str, float]]) -> list[Row]:
    """Return the mean of every measure over the regions that have it."""
    rows = []
    for measure in MEASURES:
        values = [each[measure.key] for each in scores if measure.key in each]
        if values:
            rows.append(Row(measure, float(np.mean(values)), len(values)))
    return rows


def _text_scores(scene: Scene, region: SceneObject | ScenePart, answer: RegionAnswer | None) -> dict[str, float]:
    if answer is None:
        return dict.fromkeys(("color", "material", "short", "detailed"), 0.0)
    attributes = {word.strip().lower() for word in answer.fields.get("attribute", ())}
    facts = detailed_facts(scene, region, answer.text("detailed_description"))
    return {
        # Exactly one colour and one material, so that naming several does not count.
        "color": float(attributes & set(COLORS) == {region.color}),
        "material": float(attributes & set(MATERIALS) == {region.material}),
        "short": float(is_short_description(scene, region, answer.text("short_description"))),
        "detailed": float(facts["category"] and facts["color"] and facts["relation"]),
    }


def _same(answer: str, truth: str) -> bool:
    return answer.strip().lower() == truth
