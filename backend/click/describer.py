"""A region -> its fields, within what is left of the wait budget; and the words that came too late.

Previous on the path of one click: `backend/segmenting.py`. Next: `label_config/results.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace

from backend.click.page import Page, PageRegion
from backend.ports import ClickQueue
from backend.click.region_finder import Target
from backend.click.session import RegionRecord
from backend.click.timings import Steps
from label_config.reader import LabelConfig
from worker.contracts import DescribeJob, FieldAnswer, ImageRef, Question, RegionQuery
from worker.errors import JobTimedOut, QueueUnavailable, WorkerError
from worker.fields import Filled, fill, label_question, questions_for, without_words

logger = logging.getLogger(__name__)

# One name for every region, so that the same mask with the same questions is the same job: answered from the cache.
_QUERY_ID = "region"
_MOST_LATE_REGIONS = 8  # per answer; the others follow


@dataclass(frozen=True)
class Description:
    """What is known about a region now. `job_id` is set while words are still awaited, `failure` when none come."""

    filled: Filled
    questions: tuple[Question, ...]
    model_version: str | None = None
    job_id: str | None = None
    failure: WorkerError | None = None

    @property
    def is_late(self) -> bool:
        return self.job_id is not None


@dataclass(frozen=True)
class LateRegion:
    """A region of the page whose words have come since it was answered (or never will: `failure`)."""

    region: PageRegion
    record: RegionRecord
    filled: Filled
    model_version: str | None = None
    failure: WorkerError | None = None


class Describer:
    """Asks the describe queue."""

    def __init__(self, queue: ClickQueue, model_version: str | None) -> None:
        self._queue = queue
        self._model_version = model_version

    def describe(
        self,
        target: Target,
        config: LabelConfig,
        image: ImageRef,
        image_wh: tuple[int, int],
        wait_s: float,
        steps: Steps,
        *,
        blind: bool = False,
    ) -> Description:
        """The fields that are answered within `wait_s` seconds; `blind`: asked as ever, but not put into the controls.

        A worker's failure is part of the description and not raised: the mask is worth answering.
        """
        part = target.object_mask is not None
        questions = questions_for(config, target.label, part=part)
        if target.classes:
            questions = (label_question(config, target.classes), *questions)
        if not questions:
            nothing = fill(config, target.label, (), (), part=part)
            return Description(without_words(nothing) if blind else nothing, ())
        masks = (target.rle,) if target.object_rle is None else (target.rle, target.object_rle)
        query = RegionQuery(_QUERY_ID, masks, questions)
        with steps.step("describe"):
            try:
                job_id = self._queue.submit(DescribeJob(image, image_wh, (query,), self._model_version))
            except WorkerError as error:
                return Description(Filled(), questions, failure=error)
            answers, version, late, failure = self._wait(job_id, wait_s, steps)
        filled = fill(config, target.label, questions, answers, part=part)
        if blind:
            filled = without_words(filled)
        return Description(filled, questions, version, job_id if late else None, failure)

    def _wait(
        self, job_id: str, wait_s: float, steps: Steps
    ) -> tuple[tuple[FieldAnswer, ...], str | None, bool, WorkerError | None]:
        """Answers, the model's version, whether more will come, and why none will."""
        try:
            try:
                answer = self._queue.wait_describe(job_id, wait_s)
            except JobTimedOut:
                return self._queue.partial_describe(job_id), None, True, None
        except WorkerError as error:
            return (), None, False, error
        steps.add_worker("describe", answer.timings_ms)
        return answer.answers, answer.model_version, False, None

    def late_regions(
        self, page: Page, config: LabelConfig, active_label: str | None, besides: str | None
    ) -> Iterator[LateRegion]:
        """Regions whose words have come since, for the page to replace whole.

        Only regions that the request shows, each as it shows them: a region that was deleted stays deleted, and
        whatever the annotator drew, typed or deleted in one stays. (Drafts lag about 5 s, so a region that no
        draft shows yet waits for the next answer.) While a label is active in the page, only regions of that label:
        Label Studio would put it on the others.
        """
        waiting = [
            (region, region.record)
            for region in page.regions
            if region.record is not None and region.record.describe_job is not None and region.region_id != besides
        ]
        for region, record in waiting[:_MOST_LATE_REGIONS]:
            label_stays = active_label is None or active_label == region.meant_label
            late = self._late(region, record, config, active_label) if region.items and label_stays else None
            if late is not None:
                yield late

    def _late(
        self, region: PageRegion, record: RegionRecord, config: LabelConfig, active_label: str | None
    ) -> LateRegion | None:
        try:
            answer = self._queue.wait_describe(record.describe_job or "", 0.0)
        except JobTimedOut:
            return None
        except QueueUnavailable:
            raise
        except WorkerError as error:
            logger.warning("region %s stays without words: %s", region.region_id, error)
            return LateRegion(region, replace(record, describe_job=None), Filled(values=record.sent), failure=error)
        filled = fill(config, region.meant_label, record.questions, answer.answers, part=record.is_part)
        filled = keep_typed(without_words(filled) if record.blind else filled, region)
        done = replace(
            record,
            describe_job=None,
            described=True,
            sent=filled.values,
            label=region.meant_label,
            active_label=active_label,
            origin=region.origin,
            model_version=answer.model_version,
        )
        return LateRegion(region, done, filled, answer.model_version)


def keep_typed(filled: Filled, existing: PageRegion | None) -> Filled:
    """`filled` with whatever the annotator has written or deleted in the page instead."""
    if existing is None or not existing.items:
        return filled
    sent = existing.record.sent if existing.record else {}
    held = existing.values
    values = dict(filled.values)
    for name in {*held, *sent}:
        if held.get(name) != sent.get(name):
            values.pop(name, None)
            if name in held:
                values[name] = held[name]
    return replace(filled, values=values)
