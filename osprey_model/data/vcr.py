"""Visual Commonsense Reasoning: a line of train.jsonl and its metadata file -> question, answer and rationale.

Numbers in the texts stand for objects; they become `<class> at regionN`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from osprey_model.data.phrasings import VCR_INTRODUCTIONS, WHY_QUESTIONS
from osprey_model.data.records import Draws, Record, positive_hw
from osprey_model.inputs.prompts import PREFIX_X
from osprey_model.inputs.tokenizer import REGION_PLACEHOLDER

_NUMBER = re.compile(r"\b\d+\b")


@dataclass(frozen=True, slots=True)
class VcrRegion:
    """Polygons, clipped to the box x1,y1,x2,y2."""

    polygons: Sequence[Sequence[Sequence[float]]]
    box_px_xyxy: tuple[float, float, float, float]
    image_hw: tuple[int, int]

    def mask(self) -> NDArray[np.bool_]:
        """Set every pixel whose cell centre lies in a polygon.

        As in the reference, the rounded box determines the pixels, and the exact box is divided into as many cells.

        Raises:
            ValueError: a polygon is not a list of points [x, y].
        """
        height, width = self.image_hw
        x_px, columns = _cell_centres(self.box_px_xyxy[0], self.box_px_xyxy[2], width)
        y_px, rows = _cell_centres(self.box_px_xyxy[1], self.box_px_xyxy[3], height)
        mask_HW = np.zeros((height, width), dtype=bool)
        for polygon in self.polygons:
            points = np.asarray(polygon, dtype=float)
            if points.ndim != 2 or points.shape[1] != 2:
                raise ValueError(f"expected a polygon of points [x, y], got an array of shape {points.shape}")
            mask_HW[rows, columns] |= _inside(x_px[None, :], y_px[:, None], points)
        return mask_HW


def vcr(entry: dict[str, Any], images: Path, draws: Draws) -> Record | None:
    """Return a record: a question about marked objects with its answer, then a random "why" with the rationale.

    regionN gets the class of object N (N counts from 1). The result is None if a number stands for no object.
    """
    return _record(entry, images, draws, first_name=1)


def vcr_released(entry: dict[str, Any], images: Path, draws: Draws) -> Record | None:
    """Return the record of the released code, in which regionN gets the class of object N + 1: off by one."""
    return _record(entry, images, draws, first_name=0)


def _record(entry: dict[str, Any], images: Path, draws: Draws, *, first_name: int) -> Record | None:
    names = dict(enumerate(entry["objects"], start=first_name))
    fields = ("question_orig", "answer_orig", "rationale_orig")
    if any(int(number) not in names for field in fields for number in _NUMBER.findall(entry[field])):
        return None
    question, answer, rationale = (
        _NUMBER.sub(lambda match: f"{names[int(match[0])]} at region{match[0]}", entry[field]) for field in fields
    )
    metadata = json.loads((images / entry["metadata_fn"]).read_text(encoding="utf-8"))
    polygons, boxes, count = metadata["segms"], metadata["boxes"], len(entry["objects"])
    if not len(polygons) == len(boxes) == count:
        raise ValueError(f"{count} objects, but {len(polygons)} segms and {len(boxes)} boxes in {entry['metadata_fn']}")
    image_hw = positive_hw(metadata)
    regions = tuple(
        VcrRegion(parts, (box[0], box[1], box[2], box[3]), image_hw) for parts, box in zip(polygons, boxes, strict=True)
    )
    listed = ",".join(f"region{number} {REGION_PLACEHOLDER}" for number in range(1, count + 1))
    introduction = PREFIX_X + draws.choose(VCR_INTRODUCTIONS).format(regions=listed)
    turns = ((introduction + question, answer), (draws.choose(WHY_QUESTIONS), rationale))
    return Record(turns, images / entry["img_fn"], regions)


def _cell_centres(start_px: float, end_px: float, limit: int) -> tuple[NDArray[np.float64], slice]:
    """Return the centres of a box's cells along one axis, and their pixels; those outside 0..limit are left out."""
    first, end = round(start_px), round(end_px)
    count = max(end - first, 0)
    centres = start_px + (np.arange(count) + 0.5) * (end_px - start_px) / max(count, 1)
    kept = slice(max(first, 0), max(min(end, limit), max(first, 0)))
    return centres[kept.start - first : kept.stop - first], kept


def _inside(x_px: NDArray[np.float64], y_px: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Apply the even-odd rule to a grid of points: x_px (1, W), y_px (H, 1) -> (H, W).

    As in the reference, the direction of an edge decides to which side a point on it belongs. Nothing is divided.
    """
    inside = np.zeros((y_px.shape[0], x_px.shape[1]), dtype=bool)
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
        below = y1 >= y_px
        side = (y1 - y_px) * (x0 - x1) - (x1 - x_px) * (y0 - y1)
        inside ^= ((y0 >= y_px) != below) & ((side >= 0) == below)
    return inside
