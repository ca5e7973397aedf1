"""SAM's everything mode -> nested regions. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from pycocotools import mask as coco_mask

from job_queue.contracts import Rle
from label_config.parts import clearly_smaller, mostly_inside
from worker.model_protocols import Segmenter


@dataclass(frozen=True, slots=True)
class FoundRegion:
    """One mask. `parent` is the index, among the image's regions, of the smallest region around it."""

    rle: Rle
    area_px: int
    mask_score: float  # SAM's own estimate of its IoU
    parent: int | None = None


def find_regions(segmenter: Segmenter, image_key: str, max_regions: int, min_score: float) -> list[FoundRegion]:
    """Find the nested regions of an embedded image: every region after the one it lies in, otherwise best first."""
    found = [
        FoundRegion(one.rle, one.area_px, one.predicted_iou)
        for one in segmenter.everything(image_key, max_regions=max_regions)
        if one.predicted_iou >= min_score
    ]
    return _parents_first(nested(found))


def nested(regions: Sequence[FoundRegion]) -> list[FoundRegion]:
    """Return the regions in their order, each with the smallest larger region around most of it as its parent."""
    if not regions:
        return []
    rles = [region.rle for region in regions]
    areas = np.array([region.area_px for region in regions])
    # With `iscrowd` COCO's IoU is the share of the first mask that lies in the second.
    inside_px = np.asarray(coco_mask.iou(rles, rles, [1] * len(rles))) * areas[:, None]
    holds = clearly_smaller(areas[:, None], areas[None, :]) & mostly_inside(inside_px, areas[:, None])
    return [
        replace(region, parent=int(np.where(row, areas, areas.max() + 1).argmin()) if row.any() else None)
        for region, row in zip(regions, holds, strict=True)
    ]


def root_of(regions: Sequence[FoundRegion], idx: int) -> int:
    """Return the index of the outermost region around a region: the object that it is a part of."""
    while (parent := regions[idx].parent) is not None:
        idx = parent
    return idx


def _parents_first(regions: Sequence[FoundRegion]) -> list[FoundRegion]:
    """Sort the regions so that every parent comes before its parts."""

    def depth(idx: int) -> int:
        parent = regions[idx].parent
        return 0 if parent is None else 1 + depth(parent)

    order = sorted(range(len(regions)), key=depth)  # stable, so regions of equal depth stay best first
    place = {old: new for new, old in enumerate(order)}
    return [
        replace(regions[old], parent=None if regions[old].parent is None else place[regions[old].parent or 0])
        for old in order
    ]
