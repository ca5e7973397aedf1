"""The queue as both sides see it: submit a job, wait for its answer, look at its health.

On top of RQ: JSON only, job paths as strings, job id = content hash (the served model version is
part of it), bounded depth, and errors that come back as the named ones of `job_queue.errors`.

Neighbours on the path of one click: `backend/predict.py` -> here -> `worker/jobs.py`.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

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
    CollectJob,
    DescribeAnswer,
    DescribeJob,
    ExportJob,
    FieldAnswer,
    FineTuneJob,
    LookAheadJob,
    PrelabelJob,
    ReconcileJob,
    SegmentAnswer,
    SegmentJob,
    TriggerJob,
    WarmJob,
)
from job_queue.errors import JobFailed, JobTimedOut, ModelUnavailable, NoWorker, QueueBusy, QueueUnavailable
from job_queue.finetune_progress import FineTuneProgress, read_progress
from job_queue.heartbeat import WorkerBeat, beat_key, read_beats
from job_queue.partial_answers import partial_key, read_partial_answers
from worker.settings import QueueSettings

QueueName = Literal["masks", "describe", "data", "train", "prelabel"]
QUEUE_NAMES: tuple[QueueName, ...] = ("masks", "describe")  # these serve clicks, with a model each
PRELABEL_QUEUE: QueueName = "prelabel"  # whole projects, by a worker with both models and the lowest priority
DATA_QUEUE: QueueName = "data"  # corrections, exports: no model
TRAIN_QUEUE: QueueName = "train"  # fine-tunes and the gate

_JobState = tuple[str | None, str | None]  # RQ's status of a job, and the worker that has it
AnyJob = SegmentJob | DescribeJob | WarmJob | LookAheadJob
_FUNCTIONS = {  # in worker.jobs
    SegmentJob: "segment",
    DescribeJob: "describe",
    WarmJob: "warm",
    LookAheadJob: "look_ahead",
}
# Short enough that a Redis which hangs runs into the client's socket timeout, not into the caller's deadline.
_BLOCK_SLICE_S = 0.4
LearningJob = CollectJob | ReconcileJob | ExportJob | TriggerJob | FineTuneJob
_LEARNING_FUNCTIONS = {  # in learning.jobs
    CollectJob: "collect",
    ReconcileJob: "reconcile",
    ExportJob: "export",
    TriggerJob: "trigger",
    FineTuneJob: "finetune",
}
_NAMED_ERRORS: dict[str, type[errors.OspreyError]] = {
    kind.__name__: kind for kind in (errors.ImageUnavailable, errors.ImageCorrupt, errors.ModelUnavailable)
}


def rq_queue_name(queue: str, *, background: bool = False) -> str:
    """RQ's name of one of our queues. Background jobs (warm-up, bulk) wait behind every click."""
    return f"osprey-{queue}-background" if background else f"osprey-{queue}"


def connect(redis_url: str, timeout_s: float) -> Redis:
    """A client that gives up within `timeout_s` seconds and retries only a dropped connection, once."""
    return Redis.from_url(
        redis_url,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=RedisRetry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
    )


@dataclass(frozen=True, slots=True)
class QueueState:
    """One queue: who serves it and how much waits in it."""

    workers: int = 0
    last_beat_age_s: float | None = None
    model_versions: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    depth: int = 0
    background_depth: int = 0


@dataclass(frozen=True, slots=True)
class QueueHealth:
    """What `osprey status` and the backend's /health show. `problem` says why Redis is not usable."""

    redis_ok: bool
    queues: Mapping[QueueName, QueueState] = field(default_factory=dict)
    workers: tuple[WorkerBeat, ...] = ()
    problem: str | None = None


class JobQueue:
    """Client of the queue; safe to share between threads. Connects on first use."""

    def __init__(self, redis: str | Redis, settings: QueueSettings | None = None) -> None:
        self._settings = settings or QueueSettings()
        self._redis = connect(redis, self._settings.redis_timeout_s) if isinstance(redis, str) else redis
        self._worker_names: tuple[str, ...] = ()  # as last read

    def submit(self, job: AnyJob, *, bulk: bool = False) -> str:
        """Enqueue a job and return its id, which names its content and the model that answers it.

        A job that waits, runs or has an answer already is not enqueued again; one that failed is.
        A `WarmJob` goes to every queue with a live worker, before other background jobs; the id returned is of no
        use. A `LookAheadJob` goes before the background jobs of the queue `masks`.

        Raises:
            QueueUnavailable: Redis does not answer.
            NoWorker: no live worker serves the queue.
            ModelUnavailable: the queue's model does not load, or the version asked for is not served.
            QueueBusy: the queue is at its bound.
        """
        with self._named_redis_errors():
            beats = self._read_beats()
            if isinstance(job, WarmJob):
                served: list[QueueName] = [name for name in QUEUE_NAMES if any(name in b.model_versions for b in beats)]
                if not served:
                    raise NoWorker("no worker is ready; start one with `osprey worker --queues masks,describe`")
                ids = [self._submit_to(name, job, beats, background=True, front=True) for name in served]
                return ids[0]
            queue: QueueName = "describe" if isinstance(job, DescribeJob) else "masks"
            is_ahead = isinstance(job, LookAheadJob)
            return self._submit_to(queue, job, beats, background=bulk or is_ahead, front=is_ahead)

    def submit_data(self, job: LearningJob) -> str:
        """Enqueue work on corrections and return its id. Takes about a millisecond; no worker has to be there yet.

        The same job is not enqueued again while it waits, and a hint not while it is remembered as done.

        Raises:
            QueueUnavailable: Redis does not answer.
            QueueBusy: the queue is at its bound; the next reconcile finds what is not enqueued now.
        """
        with self._named_redis_errors():
            return enqueue_data(self._redis, self._settings, job)

    def finetune_progress(self) -> FineTuneProgress | None:
        """How far the last fine-tune is, or how it ended."""
        with self._named_redis_errors():
            return read_progress(self._redis)

    def submit_prelabel(self, job: PrelabelJob) -> str:
        """Enqueue a project to be pre-annotated (or what is left of it) and return the job's id.

        Raises:
            QueueUnavailable: Redis does not answer.
            NoWorker, ModelUnavailable: nobody serves the queue.
        """
        with self._named_redis_errors():
            _served_versions(PRELABEL_QUEUE, read_beats(self._redis, self._settings.heartbeat_ttl_s))
            return enqueue_prelabel(self._redis, self._settings, job)

    def wait_segment(self, job_id: str, timeout_s: float) -> SegmentAnswer:
        """The answer of a `SegmentJob`, waiting at most `timeout_s` seconds.

        Raises:
            JobTimedOut: not ready; its answer will be kept and can be waited for again.
            JobFailed, ImageUnavailable, ImageCorrupt, ModelUnavailable: what the worker reported.
            QueueUnavailable: Redis does not answer.
        """
        return SegmentAnswer.from_json(self._wait(job_id, timeout_s))

    def wait_describe(self, job_id: str, timeout_s: float) -> DescribeAnswer:
        """The answer of a `DescribeJob`; raises as `wait_segment`."""
        return DescribeAnswer.from_json(self._wait(job_id, timeout_s))

    def partial_describe(self, job_id: str) -> tuple[FieldAnswer, ...]:
        """The answers that a describe job has published so far, in the order of its questions."""
        with self._named_redis_errors():
            return read_partial_answers(self._redis, job_id)

    def health(self) -> QueueHealth:
        """Redis, workers and depths now. Never raises for a Redis that is away: it says so."""
        try:
            beats = self._read_beats()
            queues = {name: self._queue_state(name, beats) for name in (*QUEUE_NAMES, DATA_QUEUE, TRAIN_QUEUE)}
        except RedisError as error:
            return QueueHealth(redis_ok=False, problem=f"{type(error).__name__}: {error}")
        return QueueHealth(redis_ok=True, queues=queues, workers=beats)

    def record_failure(self, message: str, *, task_id: int | None = None, where: str = "backend") -> None:
        """Keep a failure for `osprey status`; the last hundred stay."""
        with self._named_redis_errors():
            failures.record_failure(self._redis, message, task_id, where)

    def recent_failures(self, limit: int = 20) -> tuple[failures.Failure, ...]:
        """The latest failures, newest first."""
        with self._named_redis_errors():
            return failures.recent_failures(self._redis, limit)

    def _read_beats(self) -> tuple[WorkerBeat, ...]:
        beats = read_beats(self._redis, self._settings.heartbeat_ttl_s, self._worker_names)
        self._worker_names = tuple(beat.name for beat in beats)
        return beats

    def _submit_to(
        self,
        queue: QueueName,
        job: AnyJob,
        beats: tuple[WorkerBeat, ...],
        *,
        background: bool,
        front: bool,
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
        self._refuse_when_full(rq_queue, depth, background=background)
        try:
            self._enqueue(rq_queue, job_id, queue, job, background=background, front=front)
        except DuplicateJobError:
            # Left over from a failure, or another backend process enqueued it just now.
            if not self._reusable(job_id, self._look_up(job_id, rq_queue)[0], versions):
                self._forget(job_id)
                self._enqueue(rq_queue, job_id, queue, job, background=background, front=front)
        return job_id

    def _enqueue(
        self,
        rq_queue: Queue,
        job_id: str,
        queue: QueueName,
        job: AnyJob,
        *,
        background: bool,
        front: bool,
    ) -> None:
        settings = self._settings
        function = _FUNCTIONS[type(job)]
        interactive_timeout_s = settings.segment_timeout_s if queue == "masks" else settings.describe_timeout_s
        rq_queue.enqueue_call(
            f"worker.jobs.{function}",
            args=(queue, job.to_json()) if function == "warm" else (job.to_json(),),
            job_id=job_id,
            unique=True,
            at_front=front,
            description=f"{function} task={job.task_id if isinstance(job, LookAheadJob) else job.image.task_id}",
            timeout=settings.background_timeout_s if background else interactive_timeout_s,
            ttl=settings.background_queued_ttl_s if background else settings.queued_ttl_s,
            result_ttl=settings.result_ttl_s,
            failure_ttl=settings.failure_ttl_s,
            retry=Retry(max=settings.max_retries),
        )

    def _refuse_when_full(self, rq_queue: Queue, depth: int, *, background: bool) -> None:
        bound = self._settings.background_bound if background else self._settings.interactive_bound
        if depth >= bound:
            retry_after_s = 30.0 if background else 2.0
            raise QueueBusy(
                f"{depth} jobs wait in {rq_queue.name} (bound {bound}); try again in {retry_after_s:.0f} s "
                "or start another worker",
                retry_after_s,
            )

    def _look_up(self, job_id: str, rq_queue: Queue) -> tuple[_JobState, int]:
        """What is known of the job, and how many jobs wait in the queue."""
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.hmget(Job.key_for(job_id), "status", "worker_name")
        pipeline.llen(rq_queue.key)
        (status, worker_name), depth = pipeline.execute()
        return (_text(status), _text(worker_name)), int(depth)

    def _reusable(self, job_id: str, state: _JobState, versions: Sequence[str]) -> bool:
        """Whether the job waits, runs in a worker that lives, or has an answer of a version that is served.

        A worker that switches models while a job waits answers it with a version that its id does not name.
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
                # One trip: Redis answers at once where there is a result, else as soon as there is one.
                result = self._awaited_result(job_id, min(left_s, _BLOCK_SLICE_S))
                if result is not None:
                    return _unwrap(job_id, result)
                if left_s <= 0:
                    state = self._status(job_id)
                    if state is None:
                        raise JobFailed(
                            f"job {job_id} is not known any more (it expired, or Redis lost it); ask again", "JobLost"
                        )
                    raise JobTimedOut(f"job {job_id} is {state} after {timeout_s:.1f} s; its answer will be kept")

    def _awaited_result(self, job_id: str, wait_s: float) -> Result | None:
        """The job's latest result, which RQ keeps in a stream; None where there is none after `wait_s` seconds."""
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


def enqueue_data(redis: Redis, settings: QueueSettings, job: LearningJob) -> str:
    """`JobQueue.submit_data` for who has a connection: webhooks before whatever is done in the background."""
    is_hint, is_training = isinstance(job, CollectJob), isinstance(job, FineTuneJob)
    name = rq_queue_name(TRAIN_QUEUE if is_training else DATA_QUEUE, background=not is_hint)
    queue = Queue(name, connection=redis, serializer=JSONSerializer)
    depth = redis.llen(queue.key)
    if depth >= settings.data_bound:
        raise QueueBusy(f"{depth} jobs wait in {queue.name} (bound {settings.data_bound}); is its worker alive?", 60.0)
    job_id = job.content_id()
    for _ in range(2):
        try:
            queue.enqueue_call(
                f"learning.jobs.{_LEARNING_FUNCTIONS[type(job)]}",
                args=(job.to_json(),),
                job_id=job_id,
                unique=True,
                description=str(job),
                timeout=settings.train_timeout_s if is_training else settings.data_timeout_s,
                ttl=settings.background_queued_ttl_s,
                # A hint is remembered, so that it may come twice; the others may follow the one before.
                result_ttl=settings.result_ttl_s if is_hint else 0,
                failure_ttl=settings.failure_ttl_s,
                retry=Retry(max=settings.max_retries),
            )
            break
        except DuplicateJobError:
            if _text(redis.hget(Job.key_for(job_id), "status")) in _UNDER_WAY:
                break
            redis.delete(Job.key_for(job_id), Result.get_key(job_id))
    return job_id


def enqueue_prelabel(redis: Redis, settings: QueueSettings, job: PrelabelJob) -> str:
    """`JobQueue.submit_prelabel` for a worker that goes on with a run."""
    job_id = job.content_id()
    Queue(rq_queue_name(PRELABEL_QUEUE, background=True), connection=redis, serializer=JSONSerializer).enqueue_call(
        "worker.prelabel.job.prelabel",
        args=(job.to_json(),),
        job_id=job_id,
        description=f"prelabel project={job.project_id} after task {job.after_task_id}",
        timeout=settings.background_timeout_s,
        ttl=settings.background_queued_ttl_s,
        result_ttl=settings.result_ttl_s,
        failure_ttl=settings.failure_ttl_s,
        retry=Retry(max=settings.max_retries),
    )
    return job_id


_UNDER_WAY = ("queued", "started", "scheduled", "deferred", "finished")


def _served_versions(queue: QueueName, beats: tuple[WorkerBeat, ...]) -> list[str]:
    """The model versions that live workers serve on a queue, or the error that says why there is none."""
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
    """The answer inside a stored result, or the error it holds as the exception it names."""
    if result.type is not Result.Type.SUCCESSFUL:
        last_line = (result.exc_string or "no reason kept").strip().splitlines()[-1]
        raise JobFailed(f"job {job_id} failed: {last_line}", kind=last_line.partition(":")[0])
    envelope = result.return_value or {}
    if "ok" in envelope:
        return dict(envelope["ok"])
    error = envelope.get("error", {"kind": "JobFailed", "message": f"unreadable result {envelope!r}"})
    named = _NAMED_ERRORS.get(error["kind"])
    if named is not None:
        raise named(error["message"])
    raise JobFailed(error["message"], kind=error["kind"])
