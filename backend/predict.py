"""One click, from the request's JSON to the items that go back. Never raises: a failure is an answer too.

    prompts -> page -> gestures -> segmenting (masks queue) -> describing (describe queue) -> results -> validate

Called by `backend/ml_backend.py`; next on the path: `backend/prompts.py`.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from backend.click.describer import Describer, Description, LateRegion, keep_typed
from backend.click.gestures import decide
from backend.click.notices import BLIND, LATE, failure_text, notice_item
from backend.click.page import Page, read_page
from backend.ports import ClickQueue
from backend.click.prompts import Prompt, read_prompt
from backend.click.late_regions import relabelled_items
from backend.click.region_finder import Refused, RegionFinder, Target
from backend.click.session import RegionRecord, SessionStore
from backend.settings import Settings
from backend.click.timings import Steps
from backend.served_version import ServedVersion
from label_config.reader import ConfigError, LabelConfig, read_label_config
from label_config.results import AnsweredRegion, region_items, region_score
from label_config.validate import validate_results
from worker.contracts import ImageRef, LookAheadJob, WarmJob
from worker.errors import QueueUnavailable, WorkerError
from worker.images.task_image import image_ref

logger = logging.getLogger(__name__)

_WARM_AT_ONCE = 8  # of a batch request that may hold every task of a project
_REMEMBERED = 4096


@dataclass(frozen=True)
class Answer:
    """What goes back to Label Studio for one click, and how long its steps took."""

    items: list[dict[str, Any]]
    model_version: str | None = None
    score: float = 0.0
    steps: Steps = field(default_factory=Steps)


class ClickService:
    """Answers clicks and opened tasks. Safe to share between threads."""

    def __init__(self, queue: ClickQueue, sessions: SessionStore, versions: ServedVersion, settings: Settings) -> None:
        self._queue = queue
        self._sessions = sessions
        self._versions = versions
        self._settings = settings
        self._finder = RegionFinder(queue, settings.mask_wait_s)
        self._describer = Describer(queue, settings.model_version)
        # These must work while Redis is down, so they live here; a restart forgets them, which costs little.
        self._answered_prompts = _Recent()
        self._failed_prompts = _Recent()
        self._notices = _Recent()

    def model_version(self) -> str:
        """The model version that the workers serve, or served last."""
        return self._versions.current()

    def click(self, task: Mapping[str, Any], xml: str, context: Mapping[str, Any]) -> Answer:
        """Answer one interactive request. Whatever fails, the answer is well-formed."""
        steps = Steps()
        task_id = task.get("id")
        try:
            config = read_label_config(xml)
        except ConfigError as error:
            self._report(error, task_id)
            return Answer([], steps=steps)  # without a readable config there is no control to say it in
        prompt: Prompt | None = None
        try:
            prompt = read_prompt(context, config)
            if prompt is None:
                return Answer([], steps=steps)
            answer = self._answer(
                task, config, prompt.without_items(self._failed_prompts.among(prompt.item_ids)), steps
            )
        except Exception as error:
            self._mark_failed(prompt)
            self._report(error, task_id)
            answer = self._notice(config, task_id, failure_text(error, task_id), steps)
        return self._checked(config, answer, task_id)

    def open_tasks(self, tasks: Sequence[Mapping[str, Any]], xml: str) -> None:
        """Warm the images of tasks that were opened or listed, and of those that come after an opened one.

        Never raises: nobody waits for it.
        """
        try:
            config = read_label_config(xml)
            if len(tasks) == 1 and self._settings.look_ahead:
                self._look_ahead(image_ref(tasks[0], config), config.image_key)
            for task in tasks[:_WARM_AT_ONCE]:
                self._queue.submit(WarmJob(image_ref(task, config)), bulk=True)
        except (ConfigError, WorkerError) as error:
            logger.info("no warm-up for %d opened tasks: %s", len(tasks), error)

    def _look_ahead(self, image: ImageRef, image_key: str) -> None:
        """Have a worker ask Label Studio which tasks come next: it has the token. Once an hour for each task."""
        if image.task_id is None or image.project_id is None:
            return
        job = LookAheadJob(image.project_id, image.task_id, image_key, self._settings.look_ahead)
        try:
            # Before the task's own warm-up, which then goes to the front of it.
            self._queue.submit(job)
        except WorkerError as error:
            logger.info("no look-ahead after task_id=%s: %s", image.task_id, error)

    def _answer(self, task: Mapping[str, Any], config: LabelConfig, prompt: Prompt, steps: Steps) -> Answer:
        task_key, image = _task_key(task), image_ref(task, config)
        with steps.step("session"):
            records = self._sessions.load(task_key)
            page = read_page(task, records, config, prompt.image_wh, time.time())
        with steps.step("gesture"):
            gesture = decide(prompt, page)
        try:
            target = self._finder.find(gesture, prompt, page, config, image, steps)
        except Refused as refusal:
            self._mark_failed(prompt)
            items: list[dict[str, Any]] = []
            self._add_late(items, page, config, task_key, prompt, None, steps)
            self._add_notice(items, str(refusal), page, config, task_key)
            logger.info("click refused: task_id=%s %s", task.get("id"), refusal)
            return Answer(items, self._versions.last_known(), steps=steps)
        wait_s = max(self._settings.wait_budget_s - steps.elapsed_s, self._settings.describe_floor_s)
        blind = self._settings.shares.is_blind(image.project_id, image.task_id)
        description = self._describer.describe(target, config, image, prompt.image_wh, wait_s, steps, blind=blind)
        with steps.step("results"):
            answered, record = _to_page(target, description, prompt, page, blind=blind)
            items = region_items(config, answered)
        self._answered_prompts.add(*prompt.item_ids)
        try:
            with steps.step("session"):
                self._sessions.save(task_key, record)
            notice = self._add_late(items, page, config, task_key, prompt, target.region_id, steps)
        except QueueUnavailable as error:  # Redis went away in between: the mask is here, and worth answering
            self._report(error, task.get("id"))
            notice = failure_text(error, task.get("id"))
        if description.failure is not None:
            self._report(description.failure, task.get("id"))
            notice = failure_text(description.failure, task.get("id"))
        elif blind and notice is None:
            notice = BLIND
        self._add_notice(items, notice, page, config, task_key)
        logger.info(
            "click answered: task_id=%s gesture=%s region=%s label=%s late=%s job_id=%s %s",
            task.get("id"), type(gesture).__name__, target.region_id, record.label, list(description.filled.late),
            description.job_id, steps.header(),
        )  # fmt: skip
        return Answer(items, description.model_version or self._versions.last_known(), answered.score, steps)

    def _add_late(
        self,
        items: list[dict[str, Any]],
        page: Page,
        config: LabelConfig,
        task_key: str,
        prompt: Prompt,
        besides: str | None,
        steps: Steps,
    ) -> str | None:
        """Append earlier regions that have to be sent again; returns what to tell about words that never will come.

        Sent again: a region whose words came since, and one on which Label Studio put the active label.
        """
        notice = None
        with steps.step("late"):
            sent = {besides}
            for late in self._describer.late_regions(page, config, prompt.label, besides):
                if late.failure is None:
                    items += region_items(config, _late_to_page(late))
                    sent.add(late.record.region_id)
                else:
                    notice = f"An earlier region stays without words: click inside it to ask again. {late.failure}"
                self._sessions.save(task_key, late.record)
            for region in page.regions if prompt.label is None else ():
                label = region.meant_label
                if region.record and region.items and label and label != region.label and region.region_id not in sent:
                    items += relabelled_items(config, region, label)
                    self._sessions.save(task_key, replace(region.record, active_label=None))
        return notice

    def _add_notice(
        self, items: list[dict[str, Any]], text: str | None, page: Page, config: LabelConfig, task_key: str
    ) -> None:
        """Show a notice, or take one away that the page may still show."""
        stale = bool(self._notices.among([task_key])) or page.shows_notice
        if text is None:
            self._notices.discard(task_key)
        else:
            self._notices.add(task_key)
        item = notice_item(config, text)
        if item is not None and (stale or text is not None):
            items.append(item)

    def _notice(self, config: LabelConfig, task_id: object, text: str, steps: Steps) -> Answer:
        item = notice_item(config, text)
        if item is None:
            logger.warning(
                "task_id=%s: the config has no notice control, so the annotator does not read: %s", task_id, text
            )
            return Answer([], steps=steps)
        self._notices.add(str(task_id))
        return Answer([item], self._versions.last_known(), steps=steps)

    def _mark_failed(self, prompt: Prompt | None) -> None:
        """Points that got no mask do not count when the page (auto-accept off) sends them again with the next one."""
        ids = prompt.item_ids if prompt else ()
        self._failed_prompts.add(*(set(ids) - self._answered_prompts.among(ids)))

    def _report(self, error: Exception, task_id: Any) -> None:
        """To the log (with a traceback where the error is not a named one) and to `osprey status`."""
        known = isinstance(error, (WorkerError, ValueError))
        logger.error("click failed: task_id=%s %s: %s", task_id, type(error).__name__, error, exc_info=not known)
        # Redis being away is the very thing that is reported; the log has it.
        with contextlib.suppress(QueueUnavailable):
            message = f"{type(error).__name__}: {error}"
            self._queue.record_failure(message, task_id=task_id if isinstance(task_id, int) else None)

    def _checked(self, config: LabelConfig, answer: Answer, task_id: object) -> Answer:
        """The answer if the page can take it, else a notice instead of it."""
        with answer.steps.step("validate"):
            problems = validate_results(config, answer.items)
        if not problems:
            return answer
        logger.error("answer for task_id=%s withheld, it would break the page: %s", task_id, "; ".join(problems))
        item = notice_item(config, "The assistant's answer was faulty and is not shown; its log says why.")
        return Answer([item] if item else [], answer.model_version, steps=answer.steps)


class _Recent:
    """The last few thousand ids that were added. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ids: OrderedDict[str, None] = OrderedDict()

    def add(self, *ids: str) -> None:
        with self._lock:
            for item_id in ids:
                self._ids[item_id] = None
            while len(self._ids) > _REMEMBERED:
                self._ids.popitem(last=False)

    def discard(self, item_id: str) -> None:
        with self._lock:
            self._ids.pop(item_id, None)

    def among(self, ids: Sequence[str]) -> frozenset[str]:
        with self._lock:
            return frozenset(item_id for item_id in ids if item_id in self._ids)


def _task_key(task: Mapping[str, Any]) -> str:
    return str(task.get("id"))


def _to_page(
    target: Target, description: Description, prompt: Prompt, page: Page, *, blind: bool
) -> tuple[AnsweredRegion, RegionRecord]:
    """What the page is sent and what is remembered of it."""
    filled = keep_typed(description.filled, target.existing)
    label = description.filled.class_label or target.label
    origin = target.existing.origin if target.existing else "prediction"
    failure = description.failure
    notes = (LATE,) if description.is_late else () if failure is None else (failure_text(failure, "of this page"),)
    if blind and failure is None:
        notes = (BLIND,)
    drawn = target.existing.geometry if target.existing is not None and not target.redraw else None
    answered = AnsweredRegion(
        region_id=target.region_id,
        image_wh=prompt.image_wh,
        mask=target.mask,
        label=label,
        values=filled.values,
        score=region_score(target.score, filled.confidence),
        origin=origin,
        parent_id=target.parent_id,
        drawn=drawn,
        notes=notes,
        osprey_meta={
            "model_version": description.model_version,
            "segmenter_version": target.segmenter_version,
            "suggestion": filled.suggestion,
            "confidence": filled.confidence,
            "job": description.job_id,
            **({"blind": True} if blind else {}),
        },
    )
    record = RegionRecord(
        region_id=target.region_id,
        image_wh=prompt.image_wh,
        mask=target.rle,
        score=target.score,
        answered_at=time.time(),
        label=label,
        active_label=prompt.label,
        parent_id=target.parent_id,
        object_mask=target.object_rle,
        points=target.points,
        prompt_ids=target.prompt_ids,
        box_px_xyxy=target.box_px_xyxy,
        logits_id=target.logits_id,
        origin=origin,
        sent=filled.values,
        model_version=description.model_version,
        segmenter_version=target.segmenter_version,
        describe_job=description.job_id,
        questions=description.questions,
        described=not filled.late and failure is None,
        blind=blind,
        annotator=page.annotator,
    )
    return answered, record


def _late_to_page(late: LateRegion) -> AnsweredRegion:
    record, region = late.record, late.region
    assert region.mask is not None
    return AnsweredRegion(
        region_id=record.region_id,
        image_wh=record.image_wh,
        mask=region.mask,
        label=record.label,
        values=late.filled.values,
        score=region_score(record.score, late.filled.confidence),
        origin=record.origin,
        parent_id=record.parent_id,
        drawn=region.geometry,
        notes=(BLIND,) if record.blind else (),
        osprey_meta={
            "model_version": late.model_version,
            "segmenter_version": record.segmenter_version,
            "suggestion": late.filled.suggestion,
            "confidence": late.filled.confidence,
            "job": None,
            **({"blind": True} if record.blind else {}),
        },
    )
