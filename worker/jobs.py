"""The functions RQ calls by path. Each gives `{"ok": answer}` or `{"error": {"kind", "message"}}`, plain JSON.

Neighbours on the path of one click: `worker/queue.py` -> here -> `worker/segmenter.py`, `osprey_model`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from redis.exceptions import RedisError
from rq import get_current_job

from worker.answer_cache import answer_key, for_question, read_answers, write_answers
from worker.contracts import (
    Contract,
    DescribeAnswer,
    DescribeJob,
    FieldAnswer,
    LookAheadJob,
    MaskCandidate,
    RegionQuery,
    SegmentAnswer,
    SegmentJob,
    WarmJob,
)
from worker.errors import ImageUnavailable, ModelUnavailable, NoWorker, QueueBusy, WorkerError
from worker.failures import record_failure
from worker.next_tasks import TasksUnavailable, next_images
from worker.partial_answers import publish_answer
from worker.queue import JobQueue
from worker.runtime import ModelRuntime, current

_LOG = logging.getLogger(__name__)


_MODEL_STEPS = ("embed", "decode", "describe")


class Stopwatch:
    """Milliseconds per step of one job; steps follow each other. `model_cpu`: CPU time of the models' steps.

    On a busy machine the difference says how much of a slow click was waiting for a core.
    """

    def __init__(self) -> None:
        self.timings_ms: dict[str, float] = {"model_cpu": 0.0}
        self._last, self._last_cpu = time.perf_counter(), time.process_time()
        job = get_current_job()
        if job is not None and job.enqueued_at is not None:
            waited = datetime.now(UTC) - job.enqueued_at.replace(tzinfo=UTC)
            self.timings_ms["queue"] = round(waited.total_seconds() * 1000, 1)

    def lap(self, step: str) -> None:
        """Everything since the lap before was `step`."""
        now, now_cpu = time.perf_counter(), time.process_time()
        self.timings_ms[step] = round((now - self._last) * 1000, 1)
        if step in _MODEL_STEPS:
            cpu_ms = self.timings_ms["model_cpu"] + (now_cpu - self._last_cpu) * 1000
            self.timings_ms["model_cpu"] = round(cpu_ms, 1)
        self._last, self._last_cpu = now, now_cpu


def segment(job_json: dict[str, Any]) -> dict[str, Any]:
    """`SegmentJob` -> `SegmentAnswer`."""
    return _reported("segment", job_json, lambda: _segment(current(), SegmentJob.from_json(job_json)))


def describe(job_json: dict[str, Any]) -> dict[str, Any]:
    """`DescribeJob` -> `DescribeAnswer`; every answer is published as soon as it is there."""
    return _reported("describe", job_json, lambda: _describe(current(), DescribeJob.from_json(job_json)))


def warm(queue: str, job_json: dict[str, Any]) -> dict[str, Any]:
    """`WarmJob` -> its image is embedded (queue `masks`) or its prefix is ready (queue `describe`)."""
    return _reported("warm", job_json, lambda: _warm(current(), queue, WarmJob.from_json(job_json)))


def look_ahead(job_json: dict[str, Any]) -> dict[str, Any]:
    """`LookAheadJob` -> the images of the next tasks wait to be warmed."""
    return _reported("look_ahead", job_json, lambda: _look_ahead(current(), LookAheadJob.from_json(job_json)))


def _segment(runtime: ModelRuntime, job: SegmentJob) -> SegmentAnswer:
    watch, model = Stopwatch(), runtime.segmenter
    _check_version(job.model_version, model.model_version)
    resolved = runtime.images.resolve(job.image, job.image_wh)
    watch.lap("resolve")
    runtime.embed(resolved)
    watch.lap("embed")
    previous = runtime.logits.get(job.previous_logits_id) if job.previous_logits_id else None
    points_px = [(point.x_px, point.y_px) for point in job.points]
    labels = [int(point.positive) for point in job.points]
    watch.lap("logits")
    found = model.segment(resolved.sha256, points_px, labels, job.box_px_xyxy, previous, watch.lap)
    watch.lap("masks")
    logits_ids = runtime.logits.put_all([candidate.logits for candidate in found])
    candidates = tuple(
        MaskCandidate(one.rle, one.predicted_iou, one.stability, one.area_px, logits_id)
        for one, logits_id in zip(found, logits_ids, strict=True)
    )
    watch.lap("encode")
    return SegmentAnswer(candidates, resolved.image.size, resolved.sha256, model.model_version, watch.timings_ms)


def _describe(runtime: ModelRuntime, job: DescribeJob) -> DescribeAnswer:
    watch = Stopwatch()
    runtime.follow_champion()  # inside the job, so that a worker killed while it loads loses nothing
    watch.lap("switch")
    model = runtime.describer
    _check_version(job.model_version, model.model_version)
    _check_regions(job)
    resolved = runtime.images.resolve(job.image, job.image_wh)
    watch.lap("resolve")
    answers = _Answers(runtime, job, resolved.sha256, model.model_version)
    regions, places = answers.unanswered()
    watch.lap("cache")
    if regions:

        def keep(asked_idx: int, answer: FieldAnswer) -> None:
            region_idx, question_idxs = places[asked_idx]
            answers.add(region_idx, question_idxs[answer.question_idx], answer)

        model.describe(resolved.image, regions, resolved.sha256, keep)
    watch.lap("describe")
    return DescribeAnswer(answers.in_order(), resolved.sha256, model.model_version, watch.timings_ms)


def _warm(runtime: ModelRuntime, queue: str, job: WarmJob) -> WarmJob:
    if queue != "masks":
        runtime.follow_champion()
    resolved = runtime.images.resolve(job.image)
    if queue == "masks":
        runtime.embed(resolved)
    else:
        runtime.describer.warm(resolved.image, resolved.sha256)
    return job


def _look_ahead(runtime: ModelRuntime, job: LookAheadJob) -> LookAheadJob:
    label_studio = runtime.images.label_studio
    if label_studio is None:
        return job
    queue = JobQueue(runtime.redis, runtime.settings.queue)
    try:
        # Each goes to the front of the queue, so the task that is opened first is put there last.
        for image in reversed(next_images(label_studio, job)):
            queue.submit(WarmJob(image))
    except (TasksUnavailable, ImageUnavailable, QueueBusy, NoWorker) as error:
        # Nobody asked for this: the task is warmed when it is opened.
        _LOG.warning("no look-ahead after task_id=%s: %s", job.task_id, error)
    return job


class _Answers:
    """The answers of one describe job as they come in: from the cache first, then from the model."""

    def __init__(self, runtime: ModelRuntime, job: DescribeJob, image_sha256: str, model_version: str) -> None:
        rq_job = get_current_job()
        self._job_id = None if rq_job is None else rq_job.id
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


def _check_version(wanted: str | None, served: str) -> None:
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


def _reported(name: str, job_json: dict[str, Any], work: Callable[[], Contract]) -> dict[str, Any]:
    """Run a job; a failure becomes a JSON error for the backend, a line in the log and one in `osprey status`."""
    task_id = (job_json.get("image") or job_json).get("task_id")
    rq_job = get_current_job()
    context = f"{name} job_id={rq_job.id if rq_job else None} task_id={task_id}"
    try:
        answer = work()
    except RedisError:
        raise  # the queue itself is gone: RQ and the worker's loop deal with it
    except Exception as error:
        kind, message = type(error).__name__, str(error) or repr(error)
        if isinstance(error, WorkerError):
            _LOG.warning("%s: %s: %s", context, kind, message)
        else:
            _LOG.exception("%s: %s", context, kind)
        record_failure(current().redis, f"{kind}: {message}", task_id, f"worker {name}")
        return {"error": {"kind": kind, "message": message}}
    _LOG.info("%s done %s", context, getattr(answer, "timings_ms", ""))
    return {"ok": answer.to_json()}
