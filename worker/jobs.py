"""The job functions, which RQ calls by path.

Each returns plain JSON: `{"ok": answer}` or `{"error": {"kind", "message"}}`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from redis.exceptions import RedisError
from rq import get_current_job

from job_queue.contracts import (
    Contract,
    DescribeAnswer,
    DescribeJob,
    LookAheadJob,
    MaskCandidate,
    SegmentAnswer,
    SegmentJob,
    WarmJob,
)
from job_queue.errors import LabelStudioFailed, NoWorker, OspreyError, QueueBusy
from job_queue.failures import record_failure
from job_queue.queue import JobQueue
from worker.current_runtime import current
from worker.describing.run import Stopwatch, check_version, describe_alone
from worker.label_studio.next_tasks import next_images
from worker.runtime import ModelRuntime

_LOG = logging.getLogger(__name__)


def segment(job_json: dict[str, Any]) -> dict[str, Any]:
    """Run a `SegmentJob`: return a `SegmentAnswer`."""
    return _reported("segment", job_json, lambda: _segment(current(ModelRuntime), SegmentJob.from_json(job_json)))


def describe(job_json: dict[str, Any]) -> dict[str, Any]:
    """Run a `DescribeJob`: return a `DescribeAnswer`; every field's answer is published when it is complete.

    In a worker the answer is already complete: see `worker/describing/batch.py`.
    """
    rq_job, runtime = get_current_job(), current(ModelRuntime)
    ready = None if rq_job is None else runtime.ready.pop(rq_job.id, None)
    return _reported("describe", job_json, ready or (lambda: _describe(runtime, DescribeJob.from_json(job_json))))


def warm(queue: str, job_json: dict[str, Any]) -> dict[str, Any]:
    """Run a `WarmJob`: embed its image (queue `masks`) or compute its prefix (queue `describe`)."""
    return _reported("warm", job_json, lambda: _warm(current(ModelRuntime), queue, WarmJob.from_json(job_json)))


def look_ahead(job_json: dict[str, Any]) -> dict[str, Any]:
    """Run a `LookAheadJob`: enqueue a `WarmJob` for the image of each of the next tasks."""
    return _reported(
        "look_ahead", job_json, lambda: _look_ahead(current(ModelRuntime), LookAheadJob.from_json(job_json))
    )


def _segment(runtime: ModelRuntime, job: SegmentJob) -> SegmentAnswer:
    watch, model = Stopwatch(get_current_job()), runtime.segmenter
    check_version(job.model_version, model.model_version)
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
    runtime.follow_champion()  # inside the job, so that the job is not lost if the worker is killed while loading
    return describe_alone(runtime, job, get_current_job())


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
        # Each job goes to the front of the queue, so the task that is opened first is enqueued last.
        for image in reversed(next_images(label_studio, job)):
            queue.submit(WarmJob(image))
    except (LabelStudioFailed, QueueBusy, NoWorker) as error:
        # No caller waits for a look-ahead, and the task is also warmed when it is opened.
        _LOG.warning("no look-ahead after task_id=%s: %s", job.task_id, error)
    return job


def _reported(name: str, job_json: dict[str, Any], work: Callable[[], Contract]) -> dict[str, Any]:
    """Run a job; report a failure as a JSON error to the backend, in the log and in `osprey status`."""
    task_id = (job_json.get("image") or job_json).get("task_id")
    rq_job = get_current_job()
    context = f"{name} job_id={rq_job.id if rq_job else None} task_id={task_id}"
    try:
        answer = work()
    except RedisError:
        raise  # without Redis no result can be stored; RQ and the worker's loop handle it
    except Exception as error:
        kind, message = type(error).__name__, str(error) or repr(error)
        if isinstance(error, OspreyError):
            _LOG.warning("%s: %s: %s", context, kind, message)
        else:
            _LOG.exception("%s: %s", context, kind)
        record_failure(current(ModelRuntime).redis, f"{kind}: {message}", task_id, f"worker {name}")
        return {"error": {"kind": kind, "message": message}}
    _LOG.info("%s done %s", context, getattr(answer, "timings_ms", ""))
    return {"ok": answer.to_json()}
