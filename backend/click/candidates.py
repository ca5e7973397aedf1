"""Choose one of the masks that SAM answers with: sub-part, part and whole. Pure."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from backend.click.prompts import Box
from job_queue.contracts import MaskCandidate, PromptPoint, Rle, SegmentAnswer
from job_queue.mask_codec import BoolMask, decode_mask, encode_mask
from label_config.parts import clearly_smaller, mostly_inside

LEAST_IOU = 0.5  # a lower estimate by SAM means that the click hit no object
IOU_SLACK = 0.1  # a smaller difference between SAM's estimates does not tell which mask is meant
MOST_OF_IMAGE = 0.6  # a larger mask is the background more often than an object
KEPT_AREA = 0.1  # a subtraction must leave this share of the mask


@dataclass(frozen=True)
class Picked:
    """A mask with SAM's estimate of its IoU and the id of its low-resolution logits."""

    rle: Rle
    area_px: int
    predicted_iou: float
    logits_id: str | None

    @classmethod
    def of_mask(cls, mask: BoolMask, predicted_iou: float, logits_id: str | None) -> Picked:
        """Make one from a mask (H, W) that was computed here."""
        return cls(encode_mask(mask), int(np.count_nonzero(mask)), predicted_iou, logits_id)

    @functools.cached_property
    def mask(self) -> BoolMask:
        """The mask (H, W), decoded when it is first read: a click reads one of three."""
        return decode_mask(self.rle)

    @property
    def image_area_px(self) -> int:
        """Pixels of the whole image."""
        height, width = self.rle["size"]
        return height * width


def candidates(answer: SegmentAnswer) -> list[Picked]:
    """Return SAM's masks, smallest first."""
    return [_picked(candidate) for candidate in answer.candidates]


def pick_object(picks: Sequence[Picked]) -> Picked | None:
    """Choose the largest of the good masks that is not most of the image; None without a mask."""
    good = _good(picks)
    not_huge = [pick for pick in good if pick.area_px <= MOST_OF_IMAGE * pick.image_area_px]
    return max(not_huge or good, key=lambda pick: pick.area_px, default=None)


def pick_clicked(picks: Sequence[Picked]) -> Picked | None:
    """Choose the object under one click; None on empty ground, where SAM's estimates are all low."""
    return pick_object([pick for pick in picks if pick.predicted_iou >= LEAST_IOU])


def pick_for_box(picks: Sequence[Picked], box_px_xyxy: Box) -> Picked | None:
    """Choose the mask with the highest sum of its estimate and its bounding box's IoU with the box."""
    return max(picks, key=lambda pick: pick.predicted_iou + _box_iou(pick.mask, box_px_xyxy), default=None)


def pick_part(picks: Sequence[Picked], parent: BoolMask) -> Picked | None:
    """Choose the largest mask that is clearly smaller than its object and mostly inside it; None where none is."""
    parent_area = int(np.count_nonzero(parent))
    smaller = [
        pick
        for pick in picks
        if pick.area_px > 0
        and clearly_smaller(pick.area_px, parent_area)
        and mostly_inside(int(np.count_nonzero(pick.mask & parent)), pick.area_px)
    ]
    return max(smaller, key=lambda pick: pick.area_px, default=None)


def pick_refined(picks: Sequence[Picked], points: Sequence[PromptPoint], *, part: bool) -> Picked | None:
    """Choose the mask that agrees with most points; of several the object (of a part the best estimate)."""
    if not picks:
        return None
    agreeing = [sum(_covers(pick.mask, point) == point.positive for point in points) for pick in picks]
    best = [pick for pick, count in zip(picks, agreeing, strict=True) if count == max(agreeing)]
    return max(best, key=lambda pick: pick.predicted_iou) if part else pick_object(best)


def subtract(picks: Sequence[Picked], previous: BoolMask, points: Sequence[PromptPoint]) -> Picked | None:
    """Intersect `previous` with the best mask that excludes the negative points; None where no mask does.

    The result adds no pixel, because the annotator expects an Alt+click to remove some.
    """
    negatives = [point for point in points if not point.positive]
    cut = []
    for pick in picks:
        mask = pick.mask & previous
        if not any(_covers(mask, point) for point in negatives) and mask.sum() >= KEPT_AREA * previous.sum():
            cut.append(Picked.of_mask(mask, pick.predicted_iou, pick.logits_id))
    return max(cut, key=lambda pick: pick.predicted_iou * pick.area_px, default=None)


def cut_out(picks: Sequence[Picked], previous: BoolMask) -> Picked | None:
    """Remove from `previous` the part that SAM finds at the negative point; None where too little is left."""
    part = pick_part(picks, previous)
    if part is None:
        return None
    mask = previous & ~part.mask
    return Picked.of_mask(mask, part.predicted_iou, None) if mask.sum() >= KEPT_AREA * previous.sum() else None


def _picked(candidate: MaskCandidate) -> Picked:
    return Picked(candidate.mask, candidate.area_px, candidate.predicted_iou, candidate.logits_id)


def _good(picks: Sequence[Picked]) -> list[Picked]:
    best = max((pick.predicted_iou for pick in picks), default=0.0)
    return [pick for pick in picks if pick.predicted_iou >= best - IOU_SLACK]


def _covers(mask: BoolMask, point: PromptPoint) -> bool:
    return bool(mask[int(point.y_px), int(point.x_px)])


def _box_iou(mask: BoolMask, box: Box) -> float:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return 0.0
    x0, y0, x1, y1 = float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)
    shared = max(0.0, min(x1, box[2]) - max(x0, box[0])) * max(0.0, min(y1, box[3]) - max(y0, box[1]))
    return shared / ((x1 - x0) * (y1 - y0) + (box[2] - box[0]) * (box[3] - box[1]) - shared)
