"""The client of the queue: submit a job, wait for its answer, read the queue's health.

It adds to RQ: jobs as JSON and functions by path, so that this process does not import them; job ids that are a hash of
the content and the served model version; bounded queues; and errors that are raised as the classes of
`job_queue/errors.py`.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.retry import Retry as RedisRetry
from rq import Queue, Retry
from rq.exceptions import DuplicateJobError, NoSuchJobError
from rq.job import Job
from rq.results import Result
from rq.serializers import JSONSerializer

from job_queue import errors, failures
from job_queue.contracts import (
    DescribeAnswer,
    DescribeJob,
    FieldAnswer,
    LookAheadJob,
    PrelabelJob,
    SegmentAnswer,
    SegmentJob,
)
from job_queue.errors import JobFailed, JobTimedOut, ModelUnavailable, NoWorker, QueueBusy, QueueUnavailable
from job_queue.finetune_progress import FineTuneProgress, read_progress
from job_queue.heartbeat import WorkerBeat, beat_key, read_beats
from job_queue.job_kinds import (
    DATA_QUEUE,
    JOB_KINDS,
    PRELABEL_QUEUE,
    QUEUE_NAMES,
    TRAIN_QUEUE,
    AnyJob,
    ClickJob,
    LearningJob,
    QueueName,
    rq_queue_name,
)
from job_queue.partial_answers import partial_key, read_partial_answers
from job_queue.settings import QueueSettings

_JobState = tuple[str | None, str | None]  # RQ's status of a job, and the name of the worker that runs it
# One blocking read is shorter than the socket timeout, so that a Redis that hangs is detected before the deadline.
_BLOCK_SLICE_S = 0.4
_UNDER_WAY = ("queued", "started", "scheduled", "deferred", "finished")
_NAMED_ERRORS: dict[str, type[errors.OspreyError]] = {
    kind.__name__: kind
    for kind in (errors.ImageUnavailable, errors.ImageCorrupt, errors.ModelUnavailable, errors.UnknownJob)
}


def connect(redis_url: str, timeout_s: float) -> Redis:
    """Return a Redis client that waits at most `timeout_s` seconds and retries once after a dropped connection."""
    return Redis.from_url(
        redis_url,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=RedisRetry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
    )


@dataclass(frozen=True, slots=True)
class QueueState:
    """One queue: its workers and models, and the number of jobs that wait in it."""

    workers: int = 0
    last_beat_age_s: float | None = None
    model_versions: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    depth: int = 0
    background_depth: int = 0


@dataclass(frozen=True, slots=True)
class QueueHealth:
    """The state that `osprey status` and the backend's /health show. `problem`: why Redis cannot be used."""

    redis_ok: bool
    queues: Mapping[QueueName, QueueState] = field(default_factory=dict)
    workers: tuple[WorkerBeat, ...] = ()
    problem: str | None = None


class JobQueue:
    """The client of the queue. Threads may share it; it connects at the first use."""

    def __init__(self, redis: str | Redis, settings: QueueSettings | None = None) -> None:
        self._settings = settings or QueueSettings()
        self._redis = connect(redis, self._settings.redis_timeout_s) if isinstance(redis, str) else redis
        self._worker_names: tuple[str, ...] = ()  # as last read

    def submit(self, job: AnyJob, *, bulk: bool = False) -> str:
        """Enqueue a job and return its id, a hash of its content and, for a click, of the model that answers it.

        A job that waits, runs or already has an answer is not enqueued again. A job that failed is.

        Args:
            job: the job. A `WarmJob` goes to every queue of clicks with a live worker; the id returned is that of one
                of them. A job on corrections is enqueued without a live worker, and waits for one.
            bulk: whether the job waits behind every click.

        Raises:
            QueueUnavailable: Redis does not answer.
            NoWorker: no live worker serves the queue.
            ModelUnavailable: the queue's model does not load, or the version asked for is not served.
            QueueBusy: the queue is full. If it refuses a `CollectJob`, a later reconcile finds the change.
        """
        with self._named_redis_errors():
            if isinstance(job, LearningJob):
                return enqueue(self._redis, self._settings, job)
            beats = self._read_beats()
            if isinstance(job, PrelabelJob):
                _served_versions(PRELABEL_QUEUE, beats)
                return enqueue(self._redis, self._settings, job)
            kind = JOB_KINDS[type(job)]
            if kind.queue is not None:
                return self._submit_to(kind.queue, job, beats, background=bulk or kind.is_background)
            served = [name for name in QUEUE_NAMES if any(name in beat.model_versions for beat in beats)]
            if not served:
                raise NoWorker("no worker is ready; start one with `osprey worker --queues masks,describe`")
            ids = [self._submit_to(name, job, beats, background=True) for name in served]
            return ids[0]

    def finetune_progress(self) -> FineTuneProgress | None:
        """Return the progress of the last fine-tune, or how it ended; None: there was none for a week."""
        with self._named_redis_errors():
            return read_progress(self._redis)

    def wait_segment(self, job_id: str, timeout_s: float) -> SegmentAnswer:
        """Wait at most `timeout_s` seconds for the answer to a `SegmentJob`.

        Raises:
            JobTimedOut: the answer is not ready; it will be kept, and the caller may wait again.
            JobFailed, ImageUnavailable, ImageCorrupt, ModelUnavailable: the error that the worker reported.
            QueueUnavailable: Redis does not answer.
        """
        return SegmentAnswer.from_json(self._wait(job_id, timeout_s))

    def wait_describe(self, job_id: str, timeout_s: float) -> DescribeAnswer:
        """Wait for the answer to a `DescribeJob`; raises the same errors as `wait_segment`."""
        return DescribeAnswer.from_json(self._wait(job_id, timeout_s))

    def partial_describe(self, job_id: str) -> tuple[FieldAnswer, ...]:
        """Return the answers that a describe job has published so far, in the order of its questions."""
        with self._named_redis_errors():
            return read_partial_answers(self._redis, job_id)

    def health(self) -> QueueHealth:
        """Return the state of Redis, the workers and the queues; also if Redis does not answer, instead of an error."""
        try:
            beats = self._read_beats()
            queues = {name: self._queue_state(name, beats) for name in (*QUEUE_NAMES, DATA_QUEUE, TRAIN_QUEUE)}
        except RedisError as error:
            return QueueHealth(redis_ok=False, problem=f"{type(error).__name__}: {error}")
        return QueueHealth(redis_ok=True, queues=queues, workers=beats)

    def record_failure(self, message: str, *, task_id: int | None = None, where: str = "backend") -> None:
        """Store a failure for `osprey status`, which keeps the last hundred."""
        with self._named_redis_errors():
            failures.record_failure(self._redis, message, task_id, where)

    def recent_failures(self, limit: int = 20) -> tuple[failures.Failure, ...]:
        """Return the latest failures, newest first."""
        with self._named_redis_errors():
            return failures.recent_failures(self._redis, limit)

    def _read_beats(self) -> tuple[WorkerBeat, ...]:
        beats = read_beats(self._redis, self._settings.heartbeat_ttl_s, self._worker_names)
        self._worker_names = tuple(beat.name for beat in beats)
        return beats

    def _submit_to(
        self, queue: QueueName, job: ClickJob, beats: tuple[WorkerBeat, ...], *, background: bool
    ) -> str:
        versions = _served_versions(queue, beats)
        wanted = job.model_version if isinstance(job, (SegmentJob, DescribeJob)) else None
        if wanted is not None and wanted not in versions:
            raise ModelUnavailable(
                f"model version {wanted!r} is not served on the queue {queue!r}, which serves {', '.join(versions)}; "
                "ask for one of these, or start a worker with that checkpoint"
            )
        job_id = hashlib.sha256(f"{queue}:{versions}:{job.content_id()}".encode()).hexdigest()[:40]
        rq_queue = Queue(rq_queue_name(queue, background=background), connection=self._redis, serializer=JSONSerializer)
        state, depth = self._look_up(job_id, rq_queue)
        if self._reusable(job_id, state, versions):
            return job_id
        bound = self._settings.background_bound if background else self._settings.interactive_bound
        _refuse_when_full(rq_queue, depth, bound, retry_after_s=30.0 if background else 2.0)
        try:
            self._enqueue_click(rq_queue, job_id, queue, job, background=background)
        except DuplicateJobError:
            # The job is left over from a failure, or another backend process has enqueued it in the meantime.
            if not self._reusable(job_id, self._look_up(job_id, rq_queue)[0], versions):
                self._forget(job_id)
                self._enqueue_click(rq_queue, job_id, queue, job, background=background)
        return job_id

    def _enqueue_click(
        self, rq_queue: Queue, job_id: str, queue: QueueName, job: ClickJob, *, background: bool
    ) -> None:
        settings, kind = self._settings, JOB_KINDS[type(job)]
        rq_queue.enqueue_call(
            kind.function,
            args=(queue, job.to_json()) if kind.queue is None else (job.to_json(),),
            job_id=job_id,
            unique=True,
            at_front=kind.at_front,
            description=f"{kind.name} task={job.task_id if isinstance(job, LookAheadJob) else job.image.task_id}",
            timeout=settings.background_timeout_s if background else kind.timeout_s(settings),
            ttl=settings.background_queued_ttl_s if background else settings.queued_ttl_s,
            result_ttl=settings.result_ttl_s,
            failure_ttl=settings.failure_ttl_s,
            retry=Retry(max=settings.max_retries),
        )

    def _look_up(self, job_id: str, rq_queue: Queue) -> tuple[_JobState, int]:
        """Return the state of the job and the number of jobs that wait in the queue."""
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.hmget(Job.key_for(job_id), "status", "worker_name")
        pipeline.llen(rq_queue.key)
        (status, worker_name), depth = pipeline.execute()
        return (_text(status), _text(worker_name)), int(depth)

    def _reusable(self, job_id: str, state: _JobState, versions: Sequence[str]) -> bool:
        """Return whether the job waits, runs in a live worker, or has an answer of a version that is served.

        The last has to be checked, although the id depends on the version: a worker that switches models while the job
        waits answers it with the new version.
        """
        status, worker_name = state
        if status in ("queued", "scheduled", "deferred"):
            return True
        if status == "started":
            return worker_name is not None and bool(self._redis.exists(beat_key(worker_name)))
        result = self._latest_result(job_id) if status == "finished" else None
        answer = (result.return_value or {}).get("ok") if result is not None else None
        return answer is not None and answer.get("model_version") in (None, *versions)

    def _forget(self, job_id: str) -> None:
        try:
            Job.fetch(job_id, connection=self._redis, serializer=JSONSerializer).delete()
        except NoSuchJobError:
            self._redis.delete(Job.key_for(job_id))
        self._redis.delete(Result.get_key(job_id), partial_key(job_id))

    def _wait(self, job_id: str, timeout_s: float) -> dict[str, Any]:
        deadline = time.monotonic() + timeout_s
        with self._named_redis_errors():
            while True:
                left_s = deadline - time.monotonic()
                # One round trip: Redis answers immediately if there is a result, otherwise as soon as there is one.
                result = self._awaited_result(job_id, min(left_s, _BLOCK_SLICE_S))
                if result is not None:
                    return _unwrap(job_id, result)
                if left_s <= 0:
                    state = self._status(job_id)
                    if state is None:
                        raise JobFailed(
                            f"job {job_id} no longer exists (it expired, or Redis lost it); try again", "JobLost"
                        )
                    raise JobTimedOut(f"job {job_id} is {state} after {timeout_s:.1f} s; its answer will be kept")

    def _awaited_result(self, job_id: str, wait_s: float) -> Result | None:
        """Wait for the job's latest result, which RQ keeps in a Redis stream; None: none within `wait_s` seconds."""
        key = Result.get_key(job_id)
        reply: Any = self._redis.xread({key: "0-0"}, block=max(1, int(wait_s * 1000)) if wait_s > 0 else None)
        if not reply:
            return None
        [(_, entries)] = reply
        entry_id, payload = entries[-1]
        return Result.restore(job_id, _text(entry_id), payload, connection=self._redis, serializer=JSONSerializer)

    def _status(self, job_id: str) -> str | None:
        return _text(self._redis.hget(Job.key_for(job_id), "status"))

    def _latest_result(self, job_id: str) -> Result | None:
        return Job(job_id, connection=self._redis, serializer=JSONSerializer).latest_result()

    def _queue_state(self, queue: QueueName, beats: tuple[WorkerBeat, ...]) -> QueueState:
        serving = [beat for beat in beats if queue in beat.model_versions]
        return QueueState(
            workers=len(serving),
            last_beat_age_s=min((beat.age_s for beat in serving), default=None),
            model_versions=tuple(sorted({beat.model_versions[queue] for beat in serving})),
            devices=tuple(sorted({beat.device for beat in serving})),
            depth=self._redis.llen(f"rq:queue:{rq_queue_name(queue)}"),
            background_depth=self._redis.llen(f"rq:queue:{rq_queue_name(queue, background=True)}"),
        )

    @contextmanager
    def _named_redis_errors(self) -> Iterator[None]:
        try:
            yield
        except RedisError as error:
            raise QueueUnavailable(
                f"the job queue (Redis) does not answer: {type(error).__name__}: {error}; check that Redis runs "
                "and that OSPREY_REDIS_URL names its address and password"
            ) from error


def enqueue(redis: Redis, settings: QueueSettings, job: LearningJob | PrelabelJob) -> str:
    """Enqueue a job for which no annotator waits, and return its id.

    The same job is not enqueued again while it waits or runs, or while its result is kept.

    Args:
        redis: a connection.
        settings: bounds, time limits and lifetimes.
        job: the job.

    Raises:
        QueueBusy: the queue is full.
    """
    kind = JOB_KINDS[type(job)]
    assert kind.queue is not None, "every job without an annotator has one queue"
    name = rq_queue_name(kind.queue, background=kind.is_background)
    queue = Queue(name, connection=redis, serializer=JSONSerializer)
    _refuse_when_full(queue, redis.llen(queue.key), kind.most_waiting(settings), retry_after_s=60.0)
    job_id = job.content_id()
    for _ in range(2):
        try:
            queue.enqueue_call(
                kind.function,
                args=(job.to_json(),),
                job_id=job_id,
                unique=True,
                description=str(job),
                timeout=kind.timeout_s(settings),
                ttl=settings.background_queued_ttl_s,
                result_ttl=settings.result_ttl_s if kind.keeps_result else 0,
                failure_ttl=settings.failure_ttl_s,
                retry=Retry(max=settings.max_retries),
            )
            break
        except DuplicateJobError:
            if _text(redis.hget(Job.key_for(job_id), "status")) in _UNDER_WAY:
                break
            redis.delete(Job.key_for(job_id), Result.get_key(job_id))
    return job_id


def _refuse_when_full(queue: Queue, depth: int, bound: int | None, *, retry_after_s: float) -> None:
    if bound is not None and depth >= bound:
        raise QueueBusy(
            f"{depth} jobs wait in {queue.name} (limit {bound}); try again in {retry_after_s:.0f} s, "
            "check with `osprey status` whether its worker runs, or start another one",
            retry_after_s,
        )


def _served_versions(queue: QueueName, beats: tuple[WorkerBeat, ...]) -> list[str]:
    """Return the model versions that live workers serve on a queue.

    Raises:
        ModelUnavailable: a worker serves the queue, but its model does not load.
        NoWorker: no worker serves the queue, or it is still loading its model.
    """
    listening = [beat for beat in beats if queue in beat.queues]
    versions = sorted({beat.model_versions[queue] for beat in listening if queue in beat.model_versions})
    if versions:
        return versions
    problem = next((beat.problem for beat in listening if beat.problem), None)
    if problem:
        raise ModelUnavailable(problem)
    if listening:
        raise NoWorker(f"the worker of the queue {queue!r} is still loading its model; try again in a few seconds")
    raise NoWorker(
        f"no worker listens on the queue {queue!r}; start one with `osprey worker --queues {queue}` "
        "(the click can be repeated as soon as it runs)"
    )


def _text(value: bytes | str | None) -> str | None:
    return value.decode() if isinstance(value, bytes) else value


def _unwrap(job_id: str, result: Result) -> dict[str, Any]:
    """Return the answer in a stored result.

    Raises:
        OspreyError: the job failed; the class is that of the worker's error, or `JobFailed`.
    """
    if result.type is not Result.Type.SUCCESSFUL:
        last_line = (result.exc_string or "no reason kept").strip().splitlines()[-1]
        path, _, message = last_line.partition(": ")
        if (named := _NAMED_ERRORS.get(path.rpartition(".")[2])) is not None:
            raise named(message)
        raise JobFailed(f"job {job_id} failed: {last_line}", kind=path)
    envelope = result.return_value or {}
    if "ok" in envelope:
        return dict(envelope["ok"])
    error = envelope.get("error", {"kind": "JobFailed", "message": f"unreadable result {envelope!r}"})
    named = _NAMED_ERRORS.get(error["kind"])
    if named is not None:
        raise named(error["message"])
    raise JobFailed(error["message"], kind=error["kind"])
