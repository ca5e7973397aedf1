"""Values that come after their click: they travel with the next answer, as a region sent again.

A region is also sent again when Label Studio has put the active label on it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from backend.click.click import Click
from backend.click.describer import keep_typed
from backend.click.notices import BLIND
from backend.click.page import PageRegion
from backend.click.region import RegionRecord, answered_region
from backend.click.session import SessionStore
from backend.ports import ClickQueue
from job_queue.errors import JobTimedOut, OspreyError, QueueUnavailable
from job_queue.field_answers import Filled, fill, without_words
from label_config.results import region_items

logger = logging.getLogger(__name__)

_MOST_LATE_REGIONS = 8  # per answer; the others follow with the next one


@dataclass(frozen=True)
class LateRegion:
    """A region of the page whose answers have come since its click. With `failure` they will never come."""

    region: PageRegion
    record: RegionRecord
    filled: Filled
    failure: OspreyError | None = None


class LateRegions:
    """Sends earlier regions of a page again. The page replaces a region whose id it knows."""

    def __init__(self, queue: ClickQueue, sessions: SessionStore) -> None:
        self._queue = queue
        self._sessions = sessions

    def add(self, items: list[dict[str, Any]], click: Click, answered_id: str | None) -> str | None:
        """Append the items of every earlier region that has to be sent again.

        Args:
            items: the answer so far; it grows.
            click: the click that is answered.
            answered_id: the region that the answer already holds, None without one.

        Returns:
            A notice about values that will never come, None without one.

        Raises:
            QueueUnavailable: Redis does not answer.
        """
        notice = None
        with click.timings.step("late"):
            sent = {answered_id}
            for late in self.ready(click, answered_id):
                if late.failure is None:
                    items += _late_items(click, late)
                    sent.add(late.record.region.region_id)
                else:
                    notice = f"An earlier region was not described: click inside it to try again. {late.failure}"
                self._sessions.save(click.task_key, late.record)
            for region in click.page.regions if click.prompt.label is None else ():
                record, label = region.record, region.meant_label
                if record and region.items and label and label != region.label and region.region_id not in sent:
                    items += _relabelled_items(click, region, record)
                    self._sessions.save(click.task_key, replace(record, active_label=None))
        return notice

    def ready(self, click: Click, answered_id: str | None) -> Iterator[LateRegion]:
        """Yield the regions whose answers have come since their click.

        Only regions that the request shows are sent again, each as the request shows it: a deleted region stays
        deleted, and what the annotator drew, typed or deleted in a region stays. (Drafts lag about 5 s, so a region
        that no draft shows yet waits for the next answer.) While a label is active in the page, only regions with
        that label are sent: Label Studio would put it on the others.
        """
        waiting = [
            (region, region.record)
            for region in click.page.regions
            if region.record is not None and region.record.describe_job is not None and region.region_id != answered_id
        ]
        active_label = click.prompt.label
        for region, record in waiting[:_MOST_LATE_REGIONS]:
            label_stays = active_label is None or active_label == region.meant_label
            late = self._late(region, record, click) if region.items and label_stays else None
            if late is not None:
                yield late

    def _late(self, region: PageRegion, record: RegionRecord, click: Click) -> LateRegion | None:
        """Return the region with its answers, None while they are still missing."""
        try:
            answer = self._queue.wait_describe(record.describe_job or "", 0.0)
        except JobTimedOut:
            return None
        except QueueUnavailable:
            raise
        except OspreyError as error:
            logger.warning("region %s is not described: %s", region.region_id, error)
            return LateRegion(region, replace(record, describe_job=None), Filled(), failure=error)
        label = region.meant_label
        filled = fill(click.config, label, record.questions, answer.answers, part=record.region.is_part)
        filled = keep_typed(without_words(filled) if record.blind else filled, region)
        done = replace(
            record,
            region=replace(record.region, label=label, origin=region.origin),
            describe_job=None,
            described=True,
            sent=filled.values,
            active_label=click.prompt.label,
            model_version=answer.model_version,
        )
        return LateRegion(region, done, filled)


def _late_items(click: Click, late: LateRegion) -> list[dict[str, Any]]:
    """Return the complete items of a late region: its geometry as the page has it, its values as answered."""
    notes = (BLIND,) if late.record.blind else ()
    answered = answered_region(late.record, late.filled, None, late.region.geometry, notes)
    return region_items(click.config, answered)


def _relabelled_items(click: Click, region: PageRegion, record: RegionRecord) -> list[dict[str, Any]]:
    """Return a region of the page as the page has it, under the label that it is meant to have."""
    assert region.geometry is not None, f"region {region.region_id} is not in the request"
    meta = region.geometry.get("meta") or {}
    shown = replace(
        record.region,
        image_wh=region.image_wh,
        label=region.meant_label,
        origin=region.origin,
        parent_id=region.parent_id,
    )
    answered = answered_region(
        replace(record, region=shown, sent=region.values),
        Filled(),
        None,
        region.geometry,
        notes=tuple(meta.get("text") or ()),
    )
    score = float(region.geometry.get("score") or 0.0)
    return region_items(click.config, replace(answered, score=score, osprey_meta=meta.get("osprey") or {}))
