"""One describe job on its way: its image, what the cache knows, its questions in the engine, its answers.

Several runs may share an engine session (`describe_batch.py`); a run knows only itself. Answers are published one by
one (`partial_answers.py`) and kept for every later job (`answer_cache.py`).
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
INTERACTIVE, BACKGROUND = 0, 1  # priorities in the session: a click goes first at every token


class Stopwatch:
    """Milliseconds per step of one job; steps follow each other. `model_cpu`: CPU time of the models' steps.

    On a busy machine the difference says how much of a slow click was waiting for a core; jobs that are described
    together share the process and so its CPU time.
    """

    def __init__(self, rq_job: Job | None) -> None:
        self.timings_ms: dict[str, float] = {"model_cpu": 0.0}
        self._last, self._last_cpu = time.perf_counter(), time.process_time()
        if rq_job is not None and rq_job.enqueued_at is not None:
            waited = datetime.now(UTC) - rq_job.enqueued_at.replace(tzinfo=UTC)
            self.timings_ms["queue"] = round(waited.total_seconds() * 1000, 1)

    def lap(self, step: str) -> None:
        """Everything since the lap before was `step`."""
        now, now_cpu = time.perf_counter(), time.process_time()
        self.timings_ms[step] = round((now - self._last) * 1000, 1)
        if step in _MODEL_STEPS:
            cpu_ms = self.timings_ms["model_cpu"] + (now_cpu - self._last_cpu) * 1000
            self.timings_ms["model_cpu"] = round(cpu_ms, 1)
        self._last, self._last_cpu = now, now_cpu


class DescribeRun:
    """Call `advance` until `is_ended`, and the session's `step` in between; then `answer` gives what came of it."""

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
        """A run whose image is on its way.

        Args:
            runtime: with the describer that `session` is of.
            session: where the questions go.
            job: what is asked.
            rq_job: under whose id answers are published; None: under none.
            watch: started when the job was taken.
            image: from `ImageResolver.resolve`.
            priority: of the questions in the session.
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
        """Whether `answer` has something to say."""
        return self._result is not None or self._error is not None

    @property
    def awaited_image(self) -> Future[ResolvedImage] | None:
        """What the run waits for before anything can be asked."""
        return None if self.is_ended else self._image

    def advance(self) -> None:
        """Ask as soon as the image is there; end when every answer is."""
        if self._image is not None and self._image.done() and not self.is_ended:
            image, self._image = self._image, None
            try:
                self._ask(image.result())
            except Exception as error:  # whatever it is belongs to this job alone
                self.fail(error)
        if self._answers is not None and not self._num_open and not self.is_ended:
            self._watch.lap("describe")
            model = self._runtime.describer
            self._result = DescribeAnswer(
                self._answers.in_order(), self._answers.image_sha256, model.model_version, self._watch.timings_ms
            )

    def fail(self, error: BaseException) -> None:
        """End without a result: what was not answered yet is taken out of the engine."""
        self.withdraw()
        self._error = error

    def withdraw(self) -> None:
        """Take what is open out of the engine."""
        if self._image is not None:
            self._image.cancel()
        if self._asked is not None:
            self._session.cancel(self._asked)
            self._asked = None

    def answer(self) -> DescribeAnswer:
        """The result; raises what went wrong instead."""
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
    """The answers of one describe job as they come in: from the cache first, then from the model."""

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
        """Regions with the questions that are still open, and where each came from: region, its questions."""
        regions, places = [], []
        for region_idx, region in enumerate(self._job.regions):
            open_idxs = [i for i in range(len(region.questions)) if (region_idx, i) not in self._by_place]
            if open_idxs:
                questions = tuple(region.questions[i] for i in open_idxs)
                regions.append(RegionQuery(region.region_id, region.masks, questions))
                places.append((region_idx, open_idxs))
        return regions, places

    def add(self, region_idx: int, question_idx: int, answer: FieldAnswer) -> None:
        """Keep an answer of the model for this job and for every later one."""
        self._publish(region_idx, question_idx, answer)
        write_answers(self._runtime.redis, [(self._keys[region_idx, question_idx], answer)])

    def in_order(self) -> tuple[FieldAnswer, ...]:
        """All answers, ordered as the job's regions and questions."""
        return tuple(self._by_place[place] for place in sorted(self._by_place))

    def _publish(self, region_idx: int, question_idx: int, answer: FieldAnswer) -> None:
        own = for_question(answer, self._job.regions[region_idx].region_id, question_idx)
        self._by_place[region_idx, question_idx] = own
        if self._job_id is not None:
            ttl_s = self._runtime.settings.queue.result_ttl_s
            publish_answer(self._runtime.redis, self._job_id, region_idx, own, ttl_s)


def describe_alone(runtime: ModelRuntime, job: DescribeJob, rq_job: Job | None) -> DescribeAnswer:
    """One job by itself, to its end."""
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
    """Refuse a job that asks for another model version.

    Raises:
        ModelUnavailable: it does.
    """
    if wanted is not None and wanted != served:
        raise ModelUnavailable(f"model version {wanted!r} was asked for, but this worker serves {served!r}")


def _check_regions(job: DescribeJob) -> None:
    width, height = job.image_wh
    for region in job.regions:
        for mask in region.masks:
            if mask["size"] != [height, width]:
                raise ValueError(
                    f"region {region.region_id!r}: mask of {mask['size'][1]}x{mask['size'][0]} pixels on an image of "
                    f"{width}x{height}; masks have the size of the upright image"
                )
