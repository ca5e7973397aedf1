"""A gesture -> the region it is about: which mask, which label, whose part.

Previous on the path of one click: `backend/gestures.py`. Next: `backend/describing.py`.
"""

from __future__ import annotations

import functools
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from backend.click import candidates
from backend.click.candidates import Picked
from backend.click.gestures import Describe, Gesture, NewRegion, Refine, Refuse, Subtract
from backend.click.page import BoolMask, Page, PageRegion
from backend.ports import ClickQueue
from backend.click.prompts import Box, Prompt
from backend.click.timings import Steps
from label_config.labels import classes, object_label, part_label
from label_config.reader import LabelConfig
from worker.contracts import ImageRef, PromptPoint, Rle, SegmentAnswer, SegmentJob
from worker.mask_codec import decode_mask, encode_mask

_INSIDE_PARENT = 0.8


class Refused(Exception):
    """The click cannot mean anything; the message is for the annotator."""


@dataclass(frozen=True)
class Target:
    """The region that a click is about, before it is described.

    `object_mask` is set for a part: the mask of the object it belongs to. `classes` are the labels to choose from
    by asking. `existing` is the region of the page that the answer replaces.
    """

    region_id: str
    mask: BoolMask
    label: str | None
    score: float = 1.0
    parent_id: str | None = None
    object_mask: BoolMask | None = None
    classes: tuple[str, ...] = ()
    points: tuple[PromptPoint, ...] = ()
    prompt_ids: tuple[str, ...] = ()
    box_px_xyxy: Box | None = None
    logits_id: str | None = None
    segmenter_version: str | None = None
    existing: PageRegion | None = None
    redraw: bool = True  # False: the geometry goes back as the page has it

    @functools.cached_property
    def rle(self) -> Rle:
        """The mask as the queue and the session hold it."""
        return encode_mask(self.mask)

    @functools.cached_property
    def object_rle(self) -> Rle | None:
        """The object's mask likewise."""
        return None if self.object_mask is None else encode_mask(self.object_mask)


class RegionFinder:
    """Asks the mask queue and picks."""

    def __init__(self, queue: ClickQueue, mask_wait_s: float) -> None:
        self._queue = queue
        self._mask_wait_s = mask_wait_s

    def find(
        self, gesture: Gesture, prompt: Prompt, page: Page, config: LabelConfig, image: ImageRef, steps: Steps
    ) -> Target:
        """The region a gesture is about.

        Raises:
            Refused: the click means nothing here.
            WorkerError: no mask could be had.
        """
        if isinstance(gesture, Refuse):
            raise Refused(gesture.reason)
        if isinstance(gesture, Describe):
            return self._described(gesture.region, page)
        ask = _Ask(self._queue, image, prompt.image_wh, self._mask_wait_s, steps)
        if isinstance(gesture, Refine):
            return self._refined(gesture.region, prompt, page, ask)
        if isinstance(gesture, Subtract):
            return self._subtracted(gesture.region, prompt, page, ask)
        return self._new(gesture, prompt, page, config, ask)

    def _new(self, gesture: NewRegion, prompt: Prompt, page: Page, config: LabelConfig, ask: _Ask) -> Target:
        answer = ask(prompt.points, prompt.box_px_xyxy)
        picks = candidates.candidates(answer)
        if prompt.box_px_xyxy is not None:
            whole = candidates.pick_for_box(picks, prompt.box_px_xyxy)
        elif len(prompt.points) > 1:
            whole = candidates.pick_refined(picks, prompt.points, part=False)
        else:
            whole = candidates.pick_clicked(picks)
        if whole is None:
            raise Refused("Nothing was found here. Click in the middle of the object, or drag a box around it.")
        common = Target(
            region_id=f"r{secrets.token_hex(6)}",
            mask=whole.mask,
            label=None,
            points=prompt.points,
            prompt_ids=prompt.item_ids if prompt.points else (),
            box_px_xyxy=prompt.box_px_xyxy,
            segmenter_version=answer.model_version,
        )
        if not gesture.part:
            asked = classes(config, prompt.label)
            return replace(_picked(common, whole), label=object_label(config, prompt.label), classes=asked)
        return self._part(gesture.parent, common, picks, whole, prompt, page, config)

    def _part(
        self,
        parent: PageRegion | None,
        common: Target,
        picks: Sequence[Picked],
        whole: Picked,
        prompt: Prompt,
        page: Page,
        config: LabelConfig,
    ) -> Target:
        """A part of `parent`; without one, of the region around it, else of SAM's larger mask."""
        if parent is not None and parent.mask is not None:
            part = candidates.pick_part(picks, parent.mask)
            if part is None:
                raise Refused("No smaller part was found at this point. Click another spot, or drag a box around it.")
        elif prompt.box_px_xyxy is not None:
            part = whole  # the annotator drew the part's own box
        else:
            part = candidates.pick_part(picks, whole.mask) or whole
        parent = parent or _region_around(part.mask, page)
        object_mask = _object_mask(parent, page) if parent is not None else whole.mask
        return replace(
            _picked(common, part),
            label=part_label(config, prompt.label, parent.label if parent else None),
            parent_id=parent.region_id if parent else None,
            object_mask=object_mask if object_mask is not None else whole.mask,
        )

    def _refined(self, region: PageRegion, prompt: Prompt, page: Page, ask: _Ask) -> Target:
        record = region.record
        logits_id = record.logits_id if record and len(prompt.points) > 1 else None
        answer = ask(prompt.points, None, logits_id)
        is_part = record is not None and record.is_part
        picks = candidates.candidates(answer)
        pick = candidates.pick_refined(picks, prompt.points, part=is_part)
        if is_part and len(prompt.points) == 1:  # the same click sent again
            pick = candidates.pick_part(picks, _parent_mask(region, page)) or pick
        if pick is None:
            raise Refused("Nothing was found at these points. Remove the last one and try another spot.")
        pick = self._without_negatives(pick, prompt, ask)
        base = replace(_existing(region, page), points=prompt.points, prompt_ids=prompt.item_ids)
        return replace(_picked(base, pick), segmenter_version=answer.model_version)

    def _subtracted(self, region: PageRegion, prompt: Prompt, page: Page, ask: _Ask) -> Target:
        previous, record = region.mask, region.record
        if previous is None:
            raise Refused("The mask to take away from cannot be read. Use the eraser instead.")
        earlier = dict(zip(record.prompt_ids, record.points, strict=True)) if record else {}
        points = {**earlier, **dict(zip(prompt.item_ids, prompt.points, strict=True))}
        picked = None
        version = record.segmenter_version if record else None
        box = record.box_px_xyxy if record else None
        if box is not None or any(point.positive for point in points.values()):
            answer = ask(tuple(points.values()), box, record.logits_id if record else None)
            version = answer.model_version
            picked = candidates.subtract(candidates.candidates(answer), previous, tuple(points.values()))
        if picked is None:
            # SAM would not leave the point out; so find what lies there and take that away.
            last = prompt.points[-1]
            answer = ask((PromptPoint(last.x_px, last.y_px),), None)
            version = answer.model_version
            picked = candidates.cut_out(candidates.candidates(answer), previous)
        if picked is None:
            raise Refused("Nothing smaller than the mask was found at this point. Use the eraser to take it away.")
        base = replace(_existing(region, page), points=tuple(points.values()), prompt_ids=tuple(points))
        return replace(_picked(base, picked), segmenter_version=version)

    def _without_negatives(self, pick: Picked, prompt: Prompt, ask: _Ask) -> Picked:
        """The mask with what lies at a negative point cut out, where SAM left it in."""
        for point in prompt.points:
            if not point.positive and pick.mask[int(point.y_px), int(point.x_px)]:
                there = ask((PromptPoint(point.x_px, point.y_px),), None)
                pick = candidates.cut_out(candidates.candidates(there), pick.mask) or pick
        return pick

    def _described(self, region: PageRegion, page: Page) -> Target:
        if region.mask is None or not region.mask.any():
            raise Refused("The region to describe covers no pixel. Draw it again.")
        return replace(_existing(region, page), redraw=region.geometry is None)


@dataclass(frozen=True)
class _Ask:
    """One request's way to the mask queue."""

    queue: ClickQueue
    image: ImageRef
    image_wh: tuple[int, int]
    wait_s: float
    steps: Steps

    def __call__(
        self,
        points: tuple[PromptPoint, ...],
        box_px_xyxy: Box | None,
        previous_logits_id: str | None = None,
    ) -> SegmentAnswer:
        with self.steps.step("segment"):
            job_id = self.queue.submit(SegmentJob(self.image, self.image_wh, points, box_px_xyxy, previous_logits_id))
            answer = self.queue.wait_segment(job_id, self.wait_s)
        self.steps.add_worker("segment", answer.timings_ms)
        return answer


def _picked(target: Target, pick: Picked) -> Target:
    return replace(target, mask=pick.mask, score=pick.predicted_iou, logits_id=pick.logits_id)


def _existing(region: PageRegion, page: Page) -> Target:
    """A region of the page as the target that replaces it. Its mask must be readable."""
    record = region.record
    parent = page.region(region.parent_id)
    if record is not None:
        object_mask = decode_mask(record.object_mask) if record.object_mask is not None else None
    else:
        object_mask = _object_mask(parent, page) if parent is not None else None
    assert region.mask is not None, f"region {region.region_id} has no mask to work on"
    return Target(
        region_id=region.region_id,
        mask=region.mask,
        label=region.meant_label,
        score=record.score if record else 1.0,
        parent_id=region.parent_id,
        object_mask=object_mask,
        points=record.points if record else (),
        prompt_ids=record.prompt_ids if record else (),
        box_px_xyxy=record.box_px_xyxy if record else None,
        logits_id=record.logits_id if record else None,
        segmenter_version=record.segmenter_version if record else None,
        existing=region,
    )


def _parent_mask(region: PageRegion, page: Page) -> BoolMask:
    parent = page.region(region.parent_id)
    if parent is not None and parent.mask is not None:
        return parent.mask
    assert region.record is not None
    assert region.record.object_mask is not None
    return decode_mask(region.record.object_mask)


def _object_mask(parent: PageRegion, page: Page) -> BoolMask | None:
    """The whole object's mask: that of the outermost region above a part (a sub-part's category is its object's)."""
    seen = {parent.region_id}
    while (above := page.region(parent.parent_id)) is not None and above.region_id not in seen:
        seen.add(above.region_id)
        parent = above
    if parent.record is not None and parent.record.object_mask is not None:
        return decode_mask(parent.record.object_mask)
    return parent.mask


def _region_around(mask: BoolMask, page: Page) -> PageRegion | None:
    """The smallest region of the page that is larger than the mask and holds most of it."""
    area = int(np.count_nonzero(mask))
    around = [
        (int(np.count_nonzero(region.mask)), region)
        for region in page.regions
        if region.mask is not None
        and int(np.count_nonzero(region.mask)) * candidates.PART_OF_AREA > area
        and int(np.count_nonzero(region.mask & mask)) >= _INSIDE_PARENT * area
    ]
    return min(around, key=lambda pair: pair[0])[1] if around else None
