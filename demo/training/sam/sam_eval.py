"""Measure how well a segmenter does on scenes it has not seen, with one click at each inner point.

Objects are measured with the candidate that the backend would take, parts with the best of the candidates.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from demo.scenes import TRAIN_SEEDS, ScenePart, make_scene
from worker.sam.segmenter import MaskWithLogits, SamSegmenter

# The end of the training range, which no training run reaches. EVAL_SEEDS are kept for the final figures.
VALIDATION_SEEDS = TRAIN_SEEDS[-200:]
_TRUSTED_GAP = 0.1


@dataclass(frozen=True, slots=True)
class Quality:
    """Mean IoU per level, and the share of regions below an IoU of 0.5 (misses)."""

    object_iou: float
    part_iou: float
    subpart_iou: float
    object_misses: float
    part_misses: float
    num_objects: int
    num_parts: int


def measure(segmenter: SamSegmenter, seeds: Iterable[int]) -> Quality:
    """Click every object, part and sub-part of the scenes of `seeds` once."""
    objects: list[float] = []
    parts: list[float] = []
    subparts: list[float] = []
    for seed in seeds:
        scene = make_scene(seed)
        key = str(seed)
        segmenter.embed(scene.image, key)
        for thing in scene.objects:
            found = segmenter.segment(key, [thing.inner_point_px], [1])
            objects.append(_iou(largest_trusted(found), thing.mask) if found else 0.0)
            for part in thing.parts:
                parts.append(_best_iou(segmenter, key, part))
                subparts.extend(_best_iou(segmenter, key, subpart) for subpart in part.subparts)
    return Quality(
        object_iou=float(np.mean(objects)),
        part_iou=float(np.mean(parts)),
        subpart_iou=float(np.mean(subparts)) if subparts else float("nan"),
        object_misses=float(np.mean(np.array(objects) < 0.5)),
        part_misses=float(np.mean(np.array(parts) < 0.5)),
        num_objects=len(objects),
        num_parts=len(parts),
    )


def largest_trusted(candidates: list[MaskWithLogits]) -> MaskWithLogits:
    """Return the largest candidate whose predicted IoU is within 0.1 of the best, as a click does."""
    best = max(candidate.predicted_iou for candidate in candidates)
    return max(
        (candidate for candidate in candidates if candidate.predicted_iou >= best - _TRUSTED_GAP),
        key=lambda candidate: candidate.area_px,
    )


def _best_iou(segmenter: SamSegmenter, key: str, part: ScenePart) -> float:
    found = segmenter.segment(key, [part.inner_point_px], [1])
    return max((_iou(candidate, part.mask) for candidate in found), default=0.0)


def _iou(candidate: MaskWithLogits, truth: NDArray[np.bool_]) -> float:
    return float((candidate.mask & truth).sum() / (candidate.mask | truth).sum())
