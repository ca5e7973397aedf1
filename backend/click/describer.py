"""A region -> the values of its fields, as far as they are answered within the wait budget."""

from __future__ import annotations

from dataclasses import dataclass, replace

from backend.click.click import Click
from backend.click.page import PageRegion
from backend.click.region_finder import Target
from backend.click.timings import Timings
from backend.ports import ClickQueue
from job_queue.contracts import DescribeJob, FieldAnswer, Question, RegionQuery
from job_queue.errors import JobTimedOut, OspreyError
from job_queue.field_answers import Filled, fill, label_question, questions_for, without_words

# Every region has the same name here, so that the same mask with the same questions is the same job: the second one
# is answered from the cache.
_QUERY_ID = "region"


@dataclass(frozen=True)
class Description:
    """The values of a region's fields. `job_id` is set while answers are missing, `failure` when none will come."""

    filled: Filled
    questions: tuple[Question, ...] = ()
    model_version: str | None = None
    job_id: str | None = None
    failure: OspreyError | None = None

    @property
    def is_late(self) -> bool:
        """Whether answers are missing that may still come."""
        return self.job_id is not None


class Describer:
    """Asks the describe queue for the values of a region's fields."""

    def __init__(self, queue: ClickQueue, model_version: str | None) -> None:
        self._queue = queue
        self._model_version = model_version

    def describe(self, click: Click, target: Target, wait_s: float, *, blind: bool = False) -> Description:
        """Return the values that are answered within `wait_s` seconds, below what the annotator typed.

        A worker's failure is part of the description and is not raised: the mask is worth answering without it.

        Args:
            click: the click.
            target: its region.
            wait_s: how long to wait for the answers.
            blind: ask the model, but leave the controls empty.
        """
        part = target.region.is_part
        questions = questions_for(click.config, target.region.label, part=part)
        if target.classes:
            questions = (label_question(click.config, target.classes), *questions)
        description = self._ask(click, target, questions, wait_s)
        filled = without_words(description.filled) if blind else description.filled
        return replace(description, filled=keep_typed(filled, target.existing))

    def _ask(self, click: Click, target: Target, questions: tuple[Question, ...], wait_s: float) -> Description:
        """Return the model's answers, without looking at what the annotator typed."""
        region = target.region
        if not questions:
            return Description(fill(click.config, region.label, (), (), part=region.is_part))
        masks = (region.mask,) if region.object_mask is None else (region.mask, region.object_mask)
        query = RegionQuery(_QUERY_ID, masks, questions)
        job = DescribeJob(click.image, region.image_wh, (query,), self._model_version)
        with click.timings.step("describe"):
            try:
                job_id = self._queue.submit(job)
            except OspreyError as error:
                return Description(Filled(), questions, failure=error)
            answers, version, late, failure = self._wait(job_id, wait_s, click.timings)
        filled = fill(click.config, region.label, questions, answers, part=region.is_part)
        return Description(filled, questions, version, job_id if late else None, failure)

    def _wait(
        self, job_id: str, wait_s: float, timings: Timings
    ) -> tuple[tuple[FieldAnswer, ...], str | None, bool, OspreyError | None]:
        """Return the answers, the model's version, whether more answers may come, and why none will."""
        try:
            try:
                answer = self._queue.wait_describe(job_id, wait_s)
            except JobTimedOut:
                return self._queue.partial_describe(job_id), None, True, None
        except OspreyError as error:
            return (), None, False, error
        timings.add_worker("describe", answer.timings_ms)
        return answer.answers, answer.model_version, False, None


def keep_typed(filled: Filled, existing: PageRegion | None) -> Filled:
    """Replace values by what the annotator has typed in the page, and drop those that the annotator deleted."""
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
