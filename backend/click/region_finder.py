"""A gesture -> the region that it means: its mask, its label, its parent."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from backend.click import candidates
from backend.click.candidates import Picked
from backend.click.click import Click
from backend.click.gestures import Describe, Gesture, NewRegion, Refine, Refuse, Subtract
from backend.click.page import Page, PageRegion
from backend.click.prompts import Box, Prompt
from backend.click.region import Region
from backend.ports import ClickQueue
from job_queue.contracts import PromptPoint, Rle, SegmentAnswer, SegmentJob
from job_queue.mask_codec import BoolMask, decode_mask
from label_config.labels import classes, object_label, part_label
from label_config.parts import clearly_smaller, mostly_inside


class Refused(Exception):
    """The click has no meaning here; the message is for the annotator."""


@dataclass(frozen=True)
class Target:
    """The region of a click, before it is described.

    `mask` is the region's mask, (H, W). `existing` is the region of the page that the answer replaces, None for a
    new one. Without `redraw` the geometry goes back as the page has it. `classes` are the labels of which the model
    is asked to choose one.
    """

    region: Region
    mask: BoolMask
    existing: PageRegion | None = None
    redraw: bool = True
    classes: tuple[str, ...] = ()

    @property
    def drawn(self) -> Mapping[str, Any] | None:
        """The geometry item that goes back unchanged, None where the mask is drawn."""
        return None if self.existing is None or self.redraw else self.existing.geometry


class RegionFinder:
    """Asks the mask queue for candidates and chooses one."""

    def __init__(self, queue: ClickQueue, mask_wait_s: float) -> None:
        self._queue = queue
        self._mask_wait_s = mask_wait_s

    def find(self, gesture: Gesture, click: Click) -> Target:
        """Return the region that a gesture means.

        Raises:
            Refused: the click has no meaning here.
            OspreyError: the queue gave no mask.
        """
        if isinstance(gesture, Refuse):
            raise Refused(gesture.reason)
        if isinstance(gesture, Describe):
            return _described(gesture.region, click.page)
        if isinstance(gesture, Refine):
            return self._refined(gesture.region, click)
        if isinstance(gesture, Subtract):
            return self._subtracted(gesture.region, click)
        return self._new(gesture, click)

    def _new(self, gesture: NewRegion, click: Click) -> Target:
        prompt = click.prompt
        answer = self._ask(click, prompt.points, prompt.box_px_xyxy)
        picks = candidates.candidates(answer)
        whole = _whole(picks, prompt)
        if whole is None:
            raise Refused("Nothing was found here. Click in the middle of the object, or drag a box around it.")
        region = Region(
            region_id=f"r{secrets.token_hex(6)}",
            image_wh=prompt.image_wh,
            mask=whole.rle,
            points=prompt.points,
            prompt_ids=prompt.item_ids if prompt.points else (),
            box_px_xyxy=prompt.box_px_xyxy,
            segmenter_version=answer.model_version,
        )
        if not gesture.part:
            region = replace(region, label=object_label(click.config, prompt.label))
            return Target(_with_pick(region, whole), whole.mask, classes=classes(click.config, prompt.label))
        part = _part(gesture.parent, picks, whole, prompt)
        parent = gesture.parent or _region_around(part.mask, click.page)
        object_mask = _object_mask(parent, click.page) if parent is not None else None
        region = replace(
            region,
            label=part_label(click.config, prompt.label, parent.label if parent else None),
            parent_id=parent.region_id if parent else None,
            object_mask=object_mask or whole.rle,
        )
        return Target(_with_pick(region, part), part.mask)

    def _refined(self, existing: PageRegion, click: Click) -> Target:
        prompt = click.prompt
        known = existing.record.region if existing.record else None
        is_part = known is not None and known.is_part
        answer = self._ask(click, prompt.points, None, known.logits_id if known and len(prompt.points) > 1 else None)
        picks = candidates.candidates(answer)
        pick = candidates.pick_refined(picks, prompt.points, part=is_part)
        if is_part and len(prompt.points) == 1:  # the same click sent again
            pick = candidates.pick_part(picks, _parent_mask(existing, click.page)) or pick
        if pick is None:
            raise Refused("Nothing was found at these points. Remove the last one and try another spot.")
        pick = self._without_negatives(pick, click)
        region = replace(
            _region_of(existing, pick.rle, click.page),
            points=prompt.points,
            prompt_ids=prompt.item_ids,
            segmenter_version=answer.model_version,
        )
        return Target(_with_pick(region, pick), pick.mask, existing)

    def _subtracted(self, existing: PageRegion, click: Click) -> Target:
        prompt, previous = click.prompt, existing.mask
        if previous is None:
            raise Refused("The mask of this region cannot be read, so nothing was removed. Use the eraser instead.")
        known = existing.record.region if existing.record else None
        earlier = dict(zip(known.prompt_ids, known.points, strict=True)) if known else {}
        points = {**earlier, **dict(zip(prompt.item_ids, prompt.points, strict=True))}
        box = known.box_px_xyxy if known else None
        version = known.segmenter_version if known else None
        pick = None
        if box is not None or any(point.positive for point in points.values()):
            answer = self._ask(click, tuple(points.values()), box, known.logits_id if known else None)
            version = answer.model_version
            pick = candidates.subtract(candidates.candidates(answer), previous, tuple(points.values()))
        if pick is None:
            # No mask of SAM excludes the point, so remove the object that SAM finds there.
            last = prompt.points[-1]
            answer = self._ask(click, (PromptPoint(last.x_px, last.y_px),))
            version = answer.model_version
            pick = candidates.cut_out(candidates.candidates(answer), previous)
        if pick is None:
            raise Refused("Nothing smaller than the mask was found at this point. Use the eraser to remove it.")
        region = replace(
            _region_of(existing, pick.rle, click.page),
            points=tuple(points.values()),
            prompt_ids=tuple(points),
            segmenter_version=version,
        )
        return Target(_with_pick(region, pick), pick.mask, existing)

    def _without_negatives(self, pick: Picked, click: Click) -> Picked:
        """Cut out of the mask what SAM finds at the negative points that it left in."""
        for point in click.prompt.points:
            if not point.positive and pick.mask[int(point.y_px), int(point.x_px)]:
                there = self._ask(click, (PromptPoint(point.x_px, point.y_px),))
                pick = candidates.cut_out(candidates.candidates(there), pick.mask) or pick
        return pick

    def _ask(
        self,
        click: Click,
        points: tuple[PromptPoint, ...],
        box_px_xyxy: Box | None = None,
        previous_logits_id: str | None = None,
    ) -> SegmentAnswer:
        """Return the masks that SAM finds at points or a box of the click's image."""
        job = SegmentJob(click.image, click.prompt.image_wh, points, box_px_xyxy, previous_logits_id)
        with click.timings.step("segment"):
            answer = self._queue.wait_segment(self._queue.submit(job), self._mask_wait_s)
        click.timings.add_worker("segment", answer.timings_ms)
        return answer


def _described(existing: PageRegion, page: Page) -> Target:
    mask, rle = existing.mask, existing.rle
    if mask is None or rle is None or not mask.any():
        raise Refused("The region to describe covers no pixel. Draw it again.")
    return Target(_region_of(existing, rle, page), mask, existing, redraw=existing.geometry is None)


def _whole(picks: Sequence[Picked], prompt: Prompt) -> Picked | None:
    """Choose the object that a prompt for a new region means."""
    if prompt.box_px_xyxy is not None:
        return candidates.pick_for_box(picks, prompt.box_px_xyxy)
    if len(prompt.points) > 1:
        return candidates.pick_refined(picks, prompt.points, part=False)
    return candidates.pick_clicked(picks)


def _part(parent: PageRegion | None, picks: Sequence[Picked], whole: Picked, prompt: Prompt) -> Picked:
    """Choose a part of `parent`; without a parent, the part that the box marks, else a part of SAM's larger mask."""
    if parent is not None and parent.mask is not None:
        part = candidates.pick_part(picks, parent.mask)
        if part is None:
            raise Refused("No smaller part was found at this point. Click another spot, or drag a box around it.")
        return part
    if prompt.box_px_xyxy is not None:
        return whole
    return candidates.pick_part(picks, whole.mask) or whole


def _with_pick(region: Region, pick: Picked) -> Region:
    return replace(region, mask=pick.rle, score=pick.predicted_iou, logits_id=pick.logits_id)


def _region_of(existing: PageRegion, mask: Rle, page: Page) -> Region:
    """Return the record of a region as the page has it now, with the given mask."""
    parent = page.region(existing.parent_id)
    known = (
        existing.record.region
        if existing.record
        else Region(
            existing.region_id,
            existing.image_wh,
            mask,
            object_mask=_object_mask(parent, page) if parent is not None else None,
        )
    )
    return replace(
        known,
        image_wh=existing.image_wh,
        mask=mask,
        label=existing.meant_label,
        parent_id=existing.parent_id,
        origin=existing.origin,
    )


def _parent_mask(region: PageRegion, page: Page) -> BoolMask:
    parent = page.region(region.parent_id)
    if parent is not None and parent.mask is not None:
        return parent.mask
    assert region.record is not None
    assert region.record.region.object_mask is not None
    return decode_mask(region.record.region.object_mask)


def _object_mask(parent: PageRegion, page: Page) -> Rle | None:
    """Return the object's mask: that of the outermost region above a part, which the part's category is asked of."""
    seen = {parent.region_id}
    while (above := page.region(parent.parent_id)) is not None and above.region_id not in seen:
        seen.add(above.region_id)
        parent = above
    if parent.record is not None and parent.record.region.object_mask is not None:
        return parent.record.region.object_mask
    return parent.rle


def _region_around(mask: BoolMask, page: Page) -> PageRegion | None:
    """Return the smallest region of the page that the mask can be a part of."""
    area_px = int(np.count_nonzero(mask))
    around = [
        (region_area_px, region)
        for region in page.regions
        if region.mask is not None
        and clearly_smaller(area_px, region_area_px := int(np.count_nonzero(region.mask)))
        and mostly_inside(int(np.count_nonzero(region.mask & mask)), area_px)
    ]
    return min(around, key=lambda pair: pair[0])[1] if around else None
