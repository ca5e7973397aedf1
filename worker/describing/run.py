"""One describe job: its image, cached answers, its questions in the engine, its result.

Several runs may share an engine session (`batch.py`). Answers are published one by one
(`job_queue/partial_answers.py`) and stored for later jobs (`answer_cache.py`).
"""

from __future__ import annotations

import time
from concurrent.futures import Future
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from job_queue.contracts import DescribeAnswer, DescribeJob, FieldAnswer, RegionQuery
from job_queue.errors import ModelUnavailable
from job_queue.partial_answers import publish_answer
from worker.describing.answer_cache import answer_key, for_question, read_answers, write_answers
from worker.images.resolver import ResolvedImage
from worker.model_protocols import DescribeSession

if TYPE_CHECKING:
    from rq.job import Job

    from worker.runtime import ModelRuntime

_MODEL_STEPS = ("embed", "decode", "describe")
INTERACTIVE, BACKGROUND = 0, 1  # priorities in the session; clicks come first at every token


class Stopwatch:
    """Milliseconds per step of one job; steps follow each other. `model_cpu` is the CPU time of the models' steps.

    On a busy machine, the difference of wall and CPU time is the time spent waiting for a core. Jobs that are
    described together share the process and therefore its CPU time.
    """

    def __init__(self, rq_job: Job | None) -> None:
        self.timings_ms: dict[str, float] = {"model_cpu": 0.0}
        self._last, self._last_cpu = time.perf_counter(), time.process_time()
        if rq_job is not None and rq_job.enqueued_at is not None:
            waited = datetime.now(UTC) - rq_job.enqueued_at.replace(tzinfo=UTC)
            self.timings_ms["queue"] = round(waited.total_seconds() * 1000, 1)

    def lap(self, step: str) -> None:
        """Record the time since the last call as `step`."""
        now, now_cpu = time.perf_counter(), time.process_time()
        self.timings_ms[step] = round((now - self._last) * 1000, 1)
        if step in _MODEL_STEPS:
            cpu_ms = self.timings_ms["model_cpu"] + (now_cpu - self._last_cpu) * 1000
            self.timings_ms["model_cpu"] = round(cpu_ms, 1)
        self._last, self._last_cpu = now, now_cpu


class DescribeRun:
    """One job in a session. Call `advance` and the session's `step` in turns until `is_ended`, then `answer`."""

    def __init__(
        self,
        runtime: ModelRuntime,
        session: DescribeSession,
        job: DescribeJob,
        rq_job: Job | None,
        watch: Stopwatch,
        image: Future[ResolvedImage],
        priority: int = INTERACTIVE,
    ) -> None:
        """Prepare a run whose image is being fetched.

        Args:
            runtime: the runtime whose describer made `session`.
            session: the engine session for the questions.
            job: the regions and their questions.
            rq_job: the job under whose id answers are published; None: they are not published.
            watch: the clock that was started when the job was taken.
            image: the future result of `ImageResolver.resolve`.
            priority: priority of the questions in the session.
        """
        self._runtime, self._session, self._job, self._watch = runtime, session, job, watch
        self._job_id = None if rq_job is None else rq_job.id
        self._priority = priority
        self._image: Future[ResolvedImage] | None = image
        self._answers: _Answers | None = None
        self._num_open = 0
        self._asked: object | None = None
        self._result: DescribeAnswer | None = None
        self._error: BaseException | None = None

    @property
    def is_ended(self) -> bool:
        """Whether the run has a result or an error."""
        return self._result is not None or self._error is not None

    @property
    def awaited_image(self) -> Future[ResolvedImage] | None:
        """The image that the run waits for, None when it no longer does."""
        return None if self.is_ended else self._image

    def advance(self) -> None:
        """Ask the questions when the image has arrived; end the run when all answers have."""
        if self._image is not None and self._image.done() and not self.is_ended:
            image, self._image = self._image, None
            try:
                self._ask(image.result())
            except Exception as error:  # any error here concerns only this job
                self.fail(error)
        if self._answers is not None and not self._num_open and not self.is_ended:
            self._watch.lap("describe")
            model = self._runtime.describer
            self._result = DescribeAnswer(
                self._answers.in_order(), self._answers.image_sha256, model.model_version, self._watch.timings_ms
            )

    def fail(self, error: BaseException) -> None:
        """End with an error; take unanswered questions out of the engine."""
        self.withdraw()
        self._error = error

    def withdraw(self) -> None:
        """Take unanswered questions out of the engine and stop waiting for the image."""
        if self._image is not None:
            self._image.cancel()
        if self._asked is not None:
            self._session.cancel(self._asked)
            self._asked = None

    def answer(self) -> DescribeAnswer:
        """Return the result, or raise the run's error."""
        if self._error is not None:
            raise self._error
        assert self._result is not None, "a run was asked for its answer before it ended"
        return self._result

    def _ask(self, resolved: ResolvedImage) -> None:
        self._watch.lap("resolve")
        model = self._runtime.describer
        check_version(self._job.model_version, model.model_version)
        _check_regions(self._job)
        answers = self._answers = _Answers(self._runtime, self._job, self._job_id, resolved.sha256, model.model_version)
        regions, places = answers.unanswered()
        self._num_open = sum(len(region.questions) for region in regions)
        self._watch.lap("cache")

        def keep(asked_idx: int, answer: FieldAnswer) -> None:
            region_idx, question_idxs = places[asked_idx]
            answers.add(region_idx, question_idxs[answer.question_idx], answer)
            self._num_open -= 1

        if regions:
            self._asked = self._session.add(
                resolved.image, regions, resolved.sha256, keep, self.fail, priority=self._priority
            )


class _Answers:
    """The answers of one describe job: first those of the cache, then the model's as they arrive."""

    def __init__(
        self, runtime: ModelRuntime, job: DescribeJob, job_id: str | None, image_sha256: str, model_version: str
    ) -> None:
        self.image_sha256 = image_sha256
        self._job_id = job_id
        self._runtime, self._job = runtime, job
        self._by_place: dict[tuple[int, int], FieldAnswer] = {}
        self._keys = {
            (region_idx, question_idx): answer_key(image_sha256, region.masks, question, model_version)
            for region_idx, region in enumerate(job.regions)
            for question_idx, question in enumerate(region.questions)
        }
        known = read_answers(runtime.redis, list(self._keys.values()))
        for (region_idx, question_idx), answer in zip(list(self._keys), known, strict=True):
            if answer is not None:
                self._publish(region_idx, question_idx, answer)

    def unanswered(self) -> tuple[list[RegionQuery], list[tuple[int, list[int]]]]:
        """Return the regions with unanswered questions, with each region's index and those of the questions."""
        regions, places = [], []
        for region_idx, region in enumerate(self._job.regions):
            open_idxs = [i for i in range(len(region.questions)) if (region_idx, i) not in self._by_place]
            if open_idxs:
                questions = tuple(region.questions[i] for i in open_idxs)
                regions.append(RegionQuery(region.region_id, region.masks, questions))
                places.append((region_idx, open_idxs))
        return regions, places

    def add(self, region_idx: int, question_idx: int, answer: FieldAnswer) -> None:
        """Keep an answer of the model for this job and for later ones."""
        self._publish(region_idx, question_idx, answer)
        write_answers(self._runtime.redis, [(self._keys[region_idx, question_idx], answer)])

    def in_order(self) -> tuple[FieldAnswer, ...]:
        """Return all answers in the order of the job's regions and questions."""
        return tuple(self._by_place[place] for place in sorted(self._by_place))

    def _publish(self, region_idx: int, question_idx: int, answer: FieldAnswer) -> None:
        own = for_question(answer, self._job.regions[region_idx].region_id, question_idx)
        self._by_place[region_idx, question_idx] = own
        if self._job_id is not None:
            ttl_s = self._runtime.settings.queue.result_ttl_s
            publish_answer(self._runtime.redis, self._job_id, region_idx, own, ttl_s)


def describe_alone(runtime: ModelRuntime, job: DescribeJob, rq_job: Job | None) -> DescribeAnswer:
    """Run one job alone to its end."""
    watch, image = Stopwatch(rq_job), Future[ResolvedImage]()
    session = runtime.describer.session()
    image.set_result(runtime.images.resolve(job.image, job.image_wh))
    run = DescribeRun(runtime, session, job, rq_job, watch, image)
    try:
        run.advance()
        while not run.is_ended:
            session.step()
            run.advance()
    finally:
        run.withdraw()
    return run.answer()


def check_version(wanted: str | None, served: str) -> None:
    """Check that a job does not ask for another model version.

    Raises:
        ModelUnavailable: it asks for another one.
    """
    if wanted is not None and wanted != served:
        raise ModelUnavailable(f"the job asks for model version {wanted!r}, but this worker serves {served!r}")


def _check_regions(job: DescribeJob) -> None:
    """Check that all masks have the size of the image."""
    width, height = job.image_wh
    for region in job.regions:
        for mask in region.masks:
            if mask["size"] != [height, width]:
                raise ValueError(
                    f"region {region.region_id!r}: mask of {mask['size'][1]}x{mask['size'][0]} pixels on an image of "
                    f"{width}x{height}; masks have the size of the upright image"
                )
