"""Which of SAM's masks is meant. Pure.

SAM answers one point with up to three masks: sub-part, part and whole.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from backend.click.page import BoolMask
from backend.click.prompts import Box
from worker.contracts import MaskCandidate, PromptPoint, Rle, SegmentAnswer
from worker.mask_codec import decode_mask, encode_mask

LEAST_IOU = 0.5  # below it SAM itself says that one click hit no object
IOU_SLACK = 0.1  # SAM's own quality estimates this close together say nothing about which is meant
MOST_OF_IMAGE = 0.6  # a larger mask is the background more often than an object
PART_OF_AREA = 0.85  # a part is clearly smaller than its object
PART_INSIDE = 0.8  # and lies mostly inside it
KEPT_AREA = 0.1  # taking away must leave something


@dataclass(frozen=True)
class Picked:
    """A mask with SAM's own estimate of its IoU and the id of its low-resolution logits."""

    rle: Rle
    area_px: int
    predicted_iou: float
    logits_id: str | None

    @classmethod
    def of_mask(cls, mask: BoolMask, predicted_iou: float, logits_id: str | None) -> Picked:
        """From a mask (H, W) that no worker has answered."""
        return cls(encode_mask(mask), int(np.count_nonzero(mask)), predicted_iou, logits_id)

    @functools.cached_property
    def mask(self) -> BoolMask:
        """(H, W), decoded when it is looked at: of three masks a click looks at one."""
        return decode_mask(self.rle)

    @property
    def image_area_px(self) -> int:
        height, width = self.rle["size"]
        return height * width


def candidates(answer: SegmentAnswer) -> list[Picked]:
    """SAM's masks, smallest first."""
    return [_picked(candidate) for candidate in answer.candidates]


def pick_object(picks: Sequence[Picked]) -> Picked | None:
    """The largest of the good masks that is not most of the image; None where there is no mask."""
    good = _good(picks)
    not_huge = [pick for pick in good if pick.area_px <= MOST_OF_IMAGE * pick.image_area_px]
    return max(not_huge or good, key=lambda pick: pick.area_px, default=None)


def pick_clicked(picks: Sequence[Picked]) -> Picked | None:
    """The object under one click; None on empty ground, where SAM trusts none of its masks."""
    return pick_object([pick for pick in picks if pick.predicted_iou >= LEAST_IOU])


def pick_for_box(picks: Sequence[Picked], box_px_xyxy: Box) -> Picked | None:
    """The mask that fills the box best, weighed with its quality."""
    return max(picks, key=lambda pick: pick.predicted_iou + _box_iou(pick.mask, box_px_xyxy), default=None)


def pick_part(picks: Sequence[Picked], parent: BoolMask) -> Picked | None:
    """The largest mask that is clearly smaller than its object and mostly inside it; None where none is."""
    parent_area = int(np.count_nonzero(parent))
    smaller = [
        pick
        for pick in picks
        if 0 < pick.area_px < PART_OF_AREA * parent_area
        and int(np.count_nonzero(pick.mask & parent)) >= PART_INSIDE * pick.area_px
    ]
    return max(smaller, key=lambda pick: pick.area_px, default=None)


def pick_refined(picks: Sequence[Picked], points: Sequence[PromptPoint], *, part: bool) -> Picked | None:
    """The mask that obeys most of the points; of several a good large one (for a part the best one)."""
    if not picks:
        return None
    obeyed = [sum(_covers(pick.mask, point) == point.positive for point in points) for pick in picks]
    best = [pick for pick, count in zip(picks, obeyed, strict=True) if count == max(obeyed)]
    return max(best, key=lambda pick: pick.predicted_iou) if part else pick_object(best)


def subtract(picks: Sequence[Picked], previous: BoolMask, points: Sequence[PromptPoint]) -> Picked | None:
    """`previous` cut down to the best mask that leaves the negative points out; None where no mask does.

    The result never grows: an Alt+click that added pixels would surprise.
    """
    negatives = [point for point in points if not point.positive]
    cut = []
    for pick in picks:
        mask = pick.mask & previous
        if not any(_covers(mask, point) for point in negatives) and mask.sum() >= KEPT_AREA * previous.sum():
            cut.append(Picked.of_mask(mask, pick.predicted_iou, pick.logits_id))
    return max(cut, key=lambda pick: pick.predicted_iou * pick.area_px, default=None)


def cut_out(picks: Sequence[Picked], previous: BoolMask) -> Picked | None:
    """`previous` without the part that SAM finds at the negative point; None where nothing would be left."""
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
