"""The regions that the annotator's page shows, as far as a request tells. Pure.

The request names no user, but its drafts are the caller's own. Drafts lag: a region that was answered seconds ago is
on the page and not in the draft yet. So drafts (else annotations, else predictions) are joined with the session.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from backend.click.region import RegionRecord
from job_queue.contracts import Rle
from job_queue.mask_codec import BoolMask, decode_mask, encode_mask, mask_bounds_xyxy
from label_config.geometry import region_mask
from label_config.reader import LabelConfig

logger = logging.getLogger(__name__)

DRAFT_LAG_S = 7.0  # a draft is saved about 5 s after a change
RECENT_S = 15.0  # how long a region that no draft shows is assumed to be on the page


@dataclass(frozen=True)
class PageRegion:
    """One region of the page.

    `items` are its result items as the request holds them, () while no draft shows it. `record` is what the session
    remembers, None for a region that the backend did not answer.
    """

    region_id: str
    items: tuple[Mapping[str, Any], ...]
    record: RegionRecord | None
    output_name: str
    image_wh: tuple[int, int]

    @property
    def geometry(self) -> Mapping[str, Any] | None:
        """The item of the output control, None while no draft shows the region."""
        return next((item for item in self.items if item.get("from_name") == self.output_name), None)

    @property
    def origin(self) -> str:
        """Label Studio's origin: prediction, prediction-changed or manual."""
        if self.geometry is not None:
            return str(self.geometry.get("origin") or "manual")
        return self.record.region.origin if self.record else "manual"

    @property
    def label(self) -> str | None:
        """The label that the page shows."""
        if self.geometry is not None:
            labels = self.geometry["value"].get(self.geometry.get("type"))
            return str(labels[0]) if isinstance(labels, list) and labels else None
        return self.record.region.label if self.record else None

    @property
    def meant_label(self) -> str | None:
        """The label that the region is meant to have: the shown one, unless Label Studio replaced it.

        Label Studio puts the label that is active in the page, also that of a selected region, on every region of
        an answer: a part clicked inside a selected object becomes an "Object". Then the label that was sent is meant.
        """
        record = self.record
        if record is not None and self.origin == "prediction" and self.label == record.active_label:
            return record.region.label
        return self.label

    @property
    def parent_id(self) -> str | None:
        """The id of the region that this one is nested in."""
        parent_id = (self.geometry or {}).get("parentID") or (self.record.region.parent_id if self.record else None)
        return str(parent_id) if parent_id else None

    @property
    def values(self) -> dict[str, list[Any]]:
        """Each field's value in the request, by control name."""
        held = {}
        for item in self.items:
            value = item.get("value")
            content = value.get(_VALUE_KEYS.get(str(item.get("type")), "")) if isinstance(value, Mapping) else None
            if isinstance(content, list) and content:
                held[str(item.get("from_name"))] = content
        return held

    @functools.cached_property
    def mask(self) -> BoolMask | None:
        """The region's mask, (H, W); None where the item cannot be read or belongs to another image size."""
        try:
            if self._remembered is not None:
                mask: BoolMask | None = decode_mask(self._remembered)
            else:
                mask = region_mask(self.geometry) if self.geometry is not None else None
        except ValueError as error:
            logger.warning("region %s has no readable mask: %s", self.region_id, error)
            return None
        return mask if mask is not None and mask.shape == self.image_wh[::-1] else None

    @property
    def rle(self) -> Rle | None:
        """`mask` as RLE."""
        if self.mask is None:
            return None
        return self._remembered or encode_mask(self.mask)

    @property
    def _remembered(self) -> Rle | None:
        """The mask that the session has, unless the annotator edited it since."""
        unedited = self.geometry is None or self.origin == "prediction"
        return self.record.region.mask if self.record is not None and unedited else None

    def contains(self, x_px: float, y_px: float) -> bool:
        """Whether the point lies in the mask."""
        # Most regions are elsewhere, and decoding a mask of 12 megapixels takes tens of milliseconds.
        if self._remembered is not None:
            x0, y0, x1, y1 = mask_bounds_xyxy(self._remembered)
            if not (x0 <= x_px < x1 and y0 <= y_px < y1):
                return False
        return self.mask is not None and bool(self.mask[int(y_px), int(x_px)])


@dataclass(frozen=True)
class Page:
    """The page's regions, oldest first, and its annotator (None without a draft)."""

    regions: tuple[PageRegion, ...]
    annotator: str | None
    shows_notice: bool

    def region(self, region_id: str | None) -> PageRegion | None:
        """Return the region with this id, None where the page has none."""
        return next((region for region in self.regions if region.region_id == region_id), None)

    def smallest_around(self, x_px: float, y_px: float) -> PageRegion | None:
        """Return the smallest region that contains the point, None where none does."""
        around = [region for region in self.regions if region.contains(x_px, y_px)]
        return min(around, key=lambda region: int(region.mask.sum()) if region.mask is not None else 0, default=None)

    def last_answered(self) -> PageRegion | None:
        """Return the region that the backend answered last, None where it answered none."""
        answered = [(region.record.answered_at, region) for region in self.regions if region.record is not None]
        return max(answered, key=lambda pair: pair[0])[1] if answered else None


def read_page(
    task: Mapping[str, Any],
    records: Mapping[str, RegionRecord],
    config: LabelConfig,
    image_wh: tuple[int, int],
    now: float,
) -> Page:
    """Join the regions that the request shows with those that the session remembers.

    Args:
        task: the request's task.
        records: the session's records of the task, by region id, oldest answer first.
        config: the project's labeling config.
        image_wh: size of the upright image in pixels.
        now: seconds since the epoch.
    """
    drafts = [draft for draft in _objects(task.get("drafts")) if draft.get("result") is not None]
    annotator = next((str(draft["user"]) for draft in drafts if draft.get("user")), None)
    shown = _shown_regions(task, drafts, config)
    saved_at = max((_epoch(draft.get("updated_at")) for draft in drafts), default=0.0)
    regions = []
    for region_id in dict.fromkeys([*records, *shown]):
        record = records.get(region_id)
        items = shown.get(region_id, ())
        if items or (record is not None and _may_be_unsaved(record, annotator, saved_at, now)):
            regions.append(PageRegion(region_id, tuple(items), record, config.output.name, image_wh))
    return Page(tuple(regions), annotator, _shows_notice(drafts, config))


def _may_be_unsaved(record: RegionRecord, annotator: str | None, saved_at: float, now: float) -> bool:
    """Whether a region may be on the page although no draft shows it."""
    if annotator is not None and record.annotator is not None and annotator != record.annotator:
        return False
    return now - record.answered_at < RECENT_S and saved_at < record.answered_at + DRAFT_LAG_S


def _shown_regions(
    task: Mapping[str, Any], drafts: Sequence[Mapping[str, Any]], config: LabelConfig
) -> dict[str, list[Mapping[str, Any]]]:
    """Group the items of the drafts by region id; without drafts those of the annotations, else the predictions."""
    for sources in (drafts, _objects(task.get("annotations")), _objects(task.get("predictions"))):
        shown: dict[str, list[Mapping[str, Any]]] = {}
        for source in sorted(sources, key=lambda source: _epoch(source.get("updated_at"))):
            shown.update(_by_region(_objects(source.get("result")), config))
        if shown:
            return shown
    return {}


def _by_region(items: Iterable[Mapping[str, Any]], config: LabelConfig) -> dict[str, list[Mapping[str, Any]]]:
    """Group items by region id, for the regions that have a geometry of the output control."""
    by_id: dict[str, list[Mapping[str, Any]]] = {}
    for item in items:
        if isinstance(item.get("value"), Mapping):
            by_id.setdefault(str(item.get("id")), []).append(item)
    return {
        region_id: grouped
        for region_id, grouped in by_id.items()
        if any(item.get("from_name") == config.output.name for item in grouped)
    }


def _shows_notice(drafts: Iterable[Mapping[str, Any]], config: LabelConfig) -> bool:
    return config.notice is not None and any(
        item.get("from_name") == config.notice and any(item.get("value", {}).get("text") or ())
        for draft in drafts
        for item in _objects(draft.get("result"))
    )


def _objects(value: Any) -> list[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def _epoch(text: Any) -> float:
    """Read an ISO 8601 time as seconds since the epoch; 0 for anything else."""
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return 0.0


_VALUE_KEYS = {"textarea": "text", "choices": "choices", "taxonomy": "taxonomy"}
