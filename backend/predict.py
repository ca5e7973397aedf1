"""Answers one click, from the request's JSON to the items that go back. Never raises: a failure is an answer, too."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from backend.click.click import Click
from backend.click.describer import Describer, Description
from backend.click.gestures import decide
from backend.click.late_regions import LateRegions
from backend.click.notices import BLIND, LATE, failure_text, notice_item
from backend.click.page import read_page
from backend.click.prompts import Prompt, read_prompt
from backend.click.region import RegionRecord, answered_region
from backend.click.region_finder import Refused, RegionFinder, Target
from backend.click.session import SessionStore
from backend.click.timings import Timings
from backend.ports import ClickQueue
from backend.served_version import ServedVersion
from backend.settings import Settings
from job_queue.contracts import ImageRef, LookAheadJob, WarmJob
from job_queue.errors import OspreyError, QueueUnavailable
from job_queue.task_image import image_ref
from label_config.reader import ConfigError, LabelConfig, read_label_config
from label_config.results import region_items
from label_config.validate import validate_results

logger = logging.getLogger(__name__)

_WARM_AT_ONCE = 8  # of a batch request that may hold every task of a project
_REMEMBERED = 4096


@dataclass(frozen=True)
class Answer:
    """What goes back to Label Studio for one click, and how long each step took."""

    items: list[dict[str, Any]]
    model_version: str | None = None
    score: float = 0.0
    timings: Timings = field(default_factory=Timings)


class ClickService:
    """Answers clicks and warms opened tasks. Safe to share between threads."""

    def __init__(self, queue: ClickQueue, sessions: SessionStore, versions: ServedVersion, settings: Settings) -> None:
        self._queue = queue
        self._sessions = sessions
        self._versions = versions
        self._settings = settings
        self._finder = RegionFinder(queue, settings.mask_wait_s)
        self._describer = Describer(queue, settings.model_version)
        self._late_regions = LateRegions(queue, sessions)
        # These must work while Redis is down, so they are kept here; losing them at a restart costs little.
        self._answered_prompts = _Recent()
        self._failed_prompts = _Recent()
        self._notices = _Recent()

    def model_version(self) -> str:
        """Return the model version that the workers serve, or served last."""
        return self._versions.current()

    def click(self, task: Mapping[str, Any], xml: str, context: Mapping[str, Any]) -> Answer:
        """Answer one interactive request. The answer is well-formed whatever fails."""
        timings = Timings()
        task_id = task.get("id")
        try:
            config = read_label_config(xml)
        except ConfigError as error:
            self._report(error, task_id)
            return Answer([], timings=timings)  # without a config there is no control that could show a notice
        prompt: Prompt | None = None
        try:
            prompt = read_prompt(context, config)
            if prompt is None:
                return Answer([], timings=timings)
            prompt_kept = prompt.without_items(self._failed_prompts.among(prompt.item_ids))
            answer = self._answer(task, config, prompt_kept, timings)
        except Exception as error:
            self._mark_failed(prompt)
            self._report(error, task_id)
            answer = self._notice(config, task_id, failure_text(error, task_id), timings)
        return self._checked(config, answer, task_id)

    def open_tasks(self, tasks: Sequence[Mapping[str, Any]], xml: str) -> None:
        """Warm the images of opened or listed tasks, and of the tasks that follow an opened one.

        Never raises, because no answer depends on it.
        """
        try:
            config = read_label_config(xml)
            if len(tasks) == 1 and self._settings.look_ahead:
                self._look_ahead(image_ref(tasks[0], config), config.image_key)
            for task in tasks[:_WARM_AT_ONCE]:
                self._queue.submit(WarmJob(image_ref(task, config)), bulk=True)
        except (ConfigError, OspreyError) as error:
            logger.info("no warm-up for %d opened tasks: %s", len(tasks), error)

    def _look_ahead(self, image: ImageRef, image_key: str) -> None:
        """Enqueue a job that asks Label Studio for the next tasks (only workers have its token)."""
        if image.task_id is None or image.project_id is None:
            return
        job = LookAheadJob(image.project_id, image.task_id, image_key, self._settings.look_ahead)
        try:
            # Before the task's own warm-up, which then goes to the front of it.
            self._queue.submit(job)
        except OspreyError as error:
            logger.info("no look-ahead after task_id=%s: %s", image.task_id, error)

    def _answer(self, task: Mapping[str, Any], config: LabelConfig, prompt: Prompt, timings: Timings) -> Answer:
        task_key, image = str(task.get("id")), image_ref(task, config)
        with timings.step("session"):
            page = read_page(task, self._sessions.load(task_key), config, prompt.image_wh, time.time())
        click = Click(task, task_key, config, prompt, page, image, timings)
        with timings.step("gesture"):
            gesture = decide(prompt, page)
        try:
            target = self._finder.find(gesture, click)
        except Refused as refusal:
            return self._refused(click, str(refusal))
        wait_s = max(self._settings.wait_budget_s - timings.elapsed_s, self._settings.describe_floor_s)
        blind = self._settings.shares.is_blind(image.project_id, image.task_id)
        description = self._describer.describe(click, target, wait_s, blind=blind)
        with timings.step("results"):
            record = _record(click, target, description, blind=blind)
            notes = _notes(description, blind=blind)
            answered = answered_region(record, description.filled, target.mask, target.drawn, notes)
            items = region_items(config, answered)
        self._answered_prompts.add(*prompt.item_ids)
        notice = self._remember(items, click, record)
        if description.failure is not None:
            self._report(description.failure, task.get("id"))
            notice = failure_text(description.failure, task.get("id"))
        elif blind and notice is None:
            notice = BLIND
        self._add_notice(items, notice, click)
        logger.info(
            "click answered: task_id=%s gesture=%s region=%s label=%s late=%s job_id=%s %s",
            task.get("id"), type(gesture).__name__, answered.region_id, answered.label, list(description.filled.late),
            description.job_id, timings.header(),
        )  # fmt: skip
        return Answer(items, description.model_version or self._versions.last_known(), answered.score, timings)

    def _refused(self, click: Click, reason: str) -> Answer:
        """Answer a click that has no meaning: with the reason, and with earlier regions that have to be sent again."""
        self._mark_failed(click.prompt)
        items: list[dict[str, Any]] = []
        self._late_regions.add(items, click, None)
        self._add_notice(items, reason, click)
        logger.info("click refused: task_id=%s %s", click.task.get("id"), reason)
        return Answer(items, self._versions.last_known(), timings=click.timings)

    def _remember(self, items: list[dict[str, Any]], click: Click, record: RegionRecord) -> str | None:
        """Store the answered region, append earlier ones that have to be sent again, and return a notice about them."""
        try:
            with click.timings.step("session"):
                self._sessions.save(click.task_key, record)
            return self._late_regions.add(items, click, record.region.region_id)
        except QueueUnavailable as error:  # Redis went away after the mask was found, which is worth answering
            self._report(error, click.task.get("id"))
            return failure_text(error, click.task.get("id"))

    def _add_notice(self, items: list[dict[str, Any]], text: str | None, click: Click) -> None:
        """Show a notice, or remove one that the page may still show."""
        stale = bool(self._notices.among([click.task_key])) or click.page.shows_notice
        if text is None:
            self._notices.discard(click.task_key)
        else:
            self._notices.add(click.task_key)
        item = notice_item(click.config, text)
        if item is not None and (stale or text is not None):
            items.append(item)

    def _notice(self, config: LabelConfig, task_id: object, text: str, timings: Timings) -> Answer:
        """Answer with a notice alone."""
        item = notice_item(config, text)
        if item is None:
            logger.warning(
                "task_id=%s: the config has no notice control, so the annotator does not read: %s", task_id, text
            )
            return Answer([], timings=timings)
        self._notices.add(str(task_id))
        return Answer([item], self._versions.last_known(), timings=timings)

    def _mark_failed(self, prompt: Prompt | None) -> None:
        """Leave points without a mask out of later prompts: with auto-accept off the page sends them again."""
        ids = prompt.item_ids if prompt else ()
        self._failed_prompts.add(*(set(ids) - self._answered_prompts.among(ids)))

    def _report(self, error: Exception, task_id: Any) -> None:
        """Record a failure in the log (with a traceback where the error is not a named one) and for `osprey status`."""
        known = isinstance(error, (OspreyError, ValueError))
        logger.error("click failed: task_id=%s %s: %s", task_id, type(error).__name__, error, exc_info=not known)
        # If Redis is down, the failure cannot be recorded there; it is in the log.
        with contextlib.suppress(QueueUnavailable):
            message = f"{type(error).__name__}: {error}"
            self._queue.record_failure(message, task_id=task_id if isinstance(task_id, int) else None)

    def _checked(self, config: LabelConfig, answer: Answer, task_id: object) -> Answer:
        """Return the answer if the page can take it, else a notice."""
        with answer.timings.step("validate"):
            problems = validate_results(config, answer.items)
        if not problems:
            return answer
        logger.error("answer for task_id=%s withheld, it would break the page: %s", task_id, "; ".join(problems))
        item = notice_item(config, "The assistant's answer was invalid and is not shown; its log has the cause.")
        return Answer([item] if item else [], answer.model_version, timings=answer.timings)


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


def _record(click: Click, target: Target, description: Description, *, blind: bool) -> RegionRecord:
    """Return what is remembered of the answered region."""
    label = description.filled.class_label or target.region.label
    return RegionRecord(
        replace(target.region, label=label),
        answered_at=time.time(),
        active_label=click.prompt.label,
        sent=description.filled.values,
        model_version=description.model_version,
        describe_job=description.job_id,
        questions=description.questions,
        described=not description.filled.late and description.failure is None,
        blind=blind,
        annotator=click.page.annotator,
    )


def _notes(description: Description, *, blind: bool) -> tuple[str, ...]:
    """Return the texts that the page shows with the region."""
    if description.failure is not None:
        return (failure_text(description.failure, "of this page"),)
    if blind:
        return (BLIND,)
    return (LATE,) if description.is_late else ()
