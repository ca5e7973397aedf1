"""What a prompt on a page means. Pure.

box                                          a new object
point outside every region                   a new object (a part, where the part label is active)
more points for a pending suggestion         segment again with all its points
only negative points                         subtract from the region under them, else from the last one
point inside a hand-drawn region, or one     describe that region
  whose values are incomplete
point inside any other region                a part of it, one step smaller
"""

from __future__ import annotations

from dataclasses import dataclass

from backend.click.page import Page, PageRegion
from backend.click.prompts import Prompt
from label_config.labels import is_part_label


@dataclass(frozen=True, slots=True)
class NewRegion:
    """Segment at the prompt. With `part`, find a part of `parent`, or without a parent a part of SAM's larger mask."""

    part: bool = False
    parent: PageRegion | None = None


@dataclass(frozen=True, slots=True)
class Refine:
    """Segment again with all pending points; the answer replaces `region`."""

    region: PageRegion


@dataclass(frozen=True, slots=True)
class Subtract:
    """Remove what lies at the negative points from `region`."""

    region: PageRegion


@dataclass(frozen=True, slots=True)
class Describe:
    """Keep the mask of `region` and fill its fields."""

    region: PageRegion


@dataclass(frozen=True, slots=True)
class Refuse:
    """Do nothing; `reason` is for the annotator."""

    reason: str


Gesture = NewRegion | Refine | Subtract | Describe | Refuse


def decide(prompt: Prompt, page: Page) -> Gesture:
    """Return what the annotator wants, by the table at the top of this file."""
    wants_part = is_part_label(prompt.label)
    if prompt.box_px_xyxy is not None:
        return NewRegion(part=wants_part)
    pending = _pending_suggestion(prompt, page)
    if not prompt.positives:
        last = prompt.points[-1]
        region = pending or page.smallest_around(last.x_px, last.y_px) or page.last_answered()
        if region is None:
            return Refuse(
                "Alt+click removes a part of a mask, and there is no mask yet: click the object without Alt first."
            )
        return Subtract(region)
    if pending is not None:
        return Refine(pending)
    around = _smallest_around_all(prompt, page)
    if around is None:
        return NewRegion(part=wants_part)
    if _lacks_values(around):
        return Describe(around)
    return NewRegion(part=True, parent=around)


def _pending_suggestion(prompt: Prompt, page: Page) -> PageRegion | None:
    """Return the region that was answered to some of these points (with auto-accept off they stay in the page)."""
    for region in reversed(page.regions):
        if region.record is not None and set(region.record.region.prompt_ids) & set(prompt.item_ids):
            return region
    return None


def _smallest_around_all(prompt: Prompt, page: Page) -> PageRegion | None:
    """Return the smallest region around the first positive point, if it holds the others, too."""
    first, *others = prompt.positives
    around = page.smallest_around(first.x_px, first.y_px)
    return around if around and all(around.contains(point.x_px, point.y_px) for point in others) else None


def _lacks_values(region: PageRegion) -> bool:
    if region.record is not None:
        return not region.record.described
    return region.origin == "manual" or not region.values
