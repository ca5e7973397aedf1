"""A worker process: RQ's SimpleWorker (no fork, so models stay loaded) with a heartbeat, which survives Redis restarts.

RQ's own heartbeat is too slow for an annotator who waits: it is silent during a job, and a killed worker is detected
only after minutes. Therefore a thread writes `job_queue.heartbeat` keys and keeps the running job's lease short.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Protocol

from redis import Redis
from redis.client import Pipeline
from redis.exceptions import RedisError
from rq import Queue, SimpleWorker
from rq.exceptions import StopRequested
from rq.executions import Execution
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.worker import WorkerStatus

from job_queue.errors import UnknownJob
from job_queue.failures import record_failure
from job_queue.heartbeat import WorkerBeat, remove_beat, write_beat
from job_queue.job_kinds import FUNCTIONS, rq_queue_name
from job_queue.queue import connect
from worker.current_runtime import install
from worker.settings import Settings

if TYPE_CHECKING:
    from worker.describing.batch import DescribeBatch

_LOG = logging.getLogger(__name__)

_BEAT_EVERY_S = 2.0
_JOB_LEASE_S = 30  # a running job whose lease was not renewed for so long is given to another worker
_MAINTENANCE_EVERY_S = 10
_WORKER_TTL_S = 20
_LOOK_UP_S = 1  # an idle worker waits so long for a job before it checks other things, such as the champion
_SIGN_EVERY_S = 2.0  # between two of RQ's own heartbeats, each of which lasts at least 30 s
_MAX_RECONNECT_S = 2.0
_HUNG_GRACE_S = 30.0


class Runtime(Protocol):
    """The part of a runtime that a worker uses: `worker.runtime.ModelRuntime`, or a runtime without models."""

    @property
    def settings(self) -> Settings: ...

    @property
    def queues(self) -> tuple[str, ...]: ...

    @property
    def device(self) -> str: ...

    @property
    def model_versions(self) -> dict[str, str]: ...

    @property
    def problem(self) -> str | None: ...

    on_change: Callable[[], None]
    serving: str | None

    def load_missing(self) -> None: ...

    def champion_moved(self) -> bool: ...

    def follow_champion(self) -> None: ...

    def close(self) -> None: ...


class InterruptibleWorker(SimpleWorker):  # type: ignore[misc]
    """RQ's worker on one connection; `QueueWorker` starts another one after Redis was down.

    The methods without an underscore override RQ's, except `busy_since` and `leases`.
    """

    max_connection_wait_time = _MAX_RECONNECT_S
    log_result_lifespan = False

    def __init__(self, queues: Sequence[Queue], name: str, runtime: Runtime, connection: Redis) -> None:
        super().__init__(
            list(queues),
            name=name,
            connection=connection,
            serializer=JSONSerializer,
            worker_ttl=_WORKER_TTL_S,
            maintenance_interval=_MAINTENANCE_EVERY_S,
            log_job_description=False,
        )
        self._runtime = runtime
        self.is_stopping = False
        self._busy: tuple[float, float] | None = None  # monotonic start, allowed seconds
        self._running_queue: Queue | None = None
        self._batch: DescribeBatch | None = None  # None until the first describe job
        self._last_sign_s = float("-inf")

    def subscribe(self) -> None:
        """Do nothing: RQ's remote commands are not used, and its thread for them does not survive a Redis restart."""

    def unsubscribe(self) -> None:
        """Do nothing; see `subscribe`."""

    def get_heartbeat_ttl(self, job: Job) -> int:  # noqa: ARG002 - RQ's signature
        """Return the seconds until a running job counts as abandoned; the heartbeat thread renews its lease."""
        return _JOB_LEASE_S

    def heartbeat(self, timeout: int | None = None, pipeline: Pipeline | None = None) -> None:
        """Send RQ's heartbeat in one round trip instead of two, and skip it if the last one was just sent.

        RQ sends three for each job. A heartbeat that is part of a transaction is always sent.
        """
        if pipeline is not None:
            super().heartbeat(timeout, pipeline)
        elif timeout is not None or time.monotonic() - self._last_sign_s >= _SIGN_EVERY_S:
            with self.connection.pipeline(transaction=False) as together:
                super().heartbeat(timeout, together)
                together.execute()
            self._last_sign_s = time.monotonic()

    @property
    def dequeue_timeout(self) -> int:
        """Seconds RQ waits for a job at a time."""
        return _LOOK_UP_S

    @property
    def connection_timeout(self) -> int:
        """Seconds until the connection counts as lost while RQ waits for a job: RQ's default."""
        return _WORKER_TTL_S - 5

    @property
    def should_run_maintenance_tasks(self) -> bool:
        """Whether RQ's clean-up is due or the champion has changed; RQ checks this between two jobs."""
        return bool(super().should_run_maintenance_tasks) or self._runtime.champion_moved()

    def run_maintenance_tasks(self) -> None:
        """Run RQ's clean-up, try again to load missing models, and switch to another champion."""
        super().run_maintenance_tasks()
        self._runtime.load_missing()
        self._runtime.follow_champion()

    @property
    def busy_since(self) -> tuple[float, float] | None:
        """When the oldest running job began, by the monotonic clock, and its time limit in seconds."""
        together = None if self._batch is None else self._batch.busy_since
        return together or self._busy

    @property
    def leases(self) -> list[tuple[Execution, Queue]]:
        """The running executions with their queues."""
        execution, queue = self.execution, self._running_queue
        alone = [] if execution is None or queue is None else [(execution, queue)]
        return (self._batch.leases if self._batch is not None else []) or alone

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Run a job in this process; a describe job together with the clicks that arrive in the meantime."""
        self._busy, self._running_queue = (time.monotonic(), float(job.timeout or 0)), queue
        try:
            if job.func_name == "worker.jobs.describe":
                self._batch = self._batch or self._new_batch()
                self._batch.run(job, queue)
                self.set_state(WorkerStatus.IDLE)
            else:
                if job.func_name not in FUNCTIONS:
                    job.perform = partial(_refuse, job, self.connection)
                super().execute_job(job, queue)
        finally:
            self._busy = self._running_queue = None

    def _new_batch(self) -> DescribeBatch:
        # Imported here, because a worker without models must not need their libraries.
        from worker.describing.batch import DescribeBatch
        from worker.runtime import ModelRuntime

        assert isinstance(self._runtime, ModelRuntime), "only workers with models listen on the queue of describe jobs"
        return DescribeBatch(self, self._runtime)

    def teardown(self) -> None:
        """Stop the batch's thread, then clean up as RQ does at the end."""
        if self._batch is not None:
            self._batch.close()
        super().teardown()

    def _shutdown(self) -> None:
        """Handle SIGTERM or SIGINT: finish the running job, or stop immediately when idle."""
        self.is_stopping = True
        if self.busy_since is None:
            raise StopRequested
        self._stop_requested = True


class QueueWorker:
    """Loads the models, then runs jobs until it is stopped."""

    def __init__(self, runtime: Runtime, redis_url: str) -> None:
        self._runtime = runtime
        self._redis_url = redis_url
        self._name = f"{socket.gethostname()}-{os.getpid()}"
        self._num_connections = 0
        self._worker: InterruptibleWorker | None = None
        self._ended = threading.Event()
        self._news = threading.Event()

    @property
    def name(self) -> str:
        """The name of the current connection's worker in Redis."""
        return f"{self._name}-{self._num_connections}"

    def work(self) -> None:
        """Run jobs until SIGTERM or SIGINT. Redis may be down at the start or in between."""
        install(self._runtime)
        self._runtime.on_change = self._news.set
        beats = threading.Thread(target=self._beat_until_ended, name="heartbeat", daemon=True)
        beats.start()
        try:
            self._runtime.load_missing()
            while not self._work_until_redis_is_lost():
                self._num_connections += 1
        except StopRequested:
            pass
        finally:
            self._ended.set()
            self._news.set()
            beats.join()
            self._remove_beat()
            self._runtime.close()
        _LOG.info("worker stopped")

    def _work_until_redis_is_lost(self) -> bool:
        """Run one RQ worker until it loses Redis or is stopped; return True when it was stopped."""
        timeout_s = self._runtime.settings.queue.redis_timeout_s
        self._wait_for_redis()
        with connect(self._redis_url, timeout_s) as connection:
            queues = [
                Queue(rq_queue_name(queue, background=background), connection=connection, serializer=JSONSerializer)
                for background in (False, True)  # all clicks come before background jobs
                for queue in self._runtime.queues
            ]
            try:
                self._worker = InterruptibleWorker(queues, self.name, self._runtime, connection)
                self._worker.work(logging_level="WARNING")
            except RedisError as error:
                _LOG.warning("lost the connection to Redis (%s: %s)", type(error).__name__, error)
            return self._worker is not None and self._worker.is_stopping

    def _wait_for_redis(self) -> None:
        wait_s = 0.1
        while True:
            try:
                with connect(self._redis_url, self._runtime.settings.queue.redis_timeout_s) as connection:
                    connection.ping()
            except RedisError as error:
                if wait_s == _MAX_RECONNECT_S:
                    _LOG.warning("Redis does not answer (%s); trying again every %.0f s", error, wait_s)
                time.sleep(wait_s)
                wait_s = min(wait_s * 2, _MAX_RECONNECT_S)
            else:
                return

    def _beat_until_ended(self) -> None:
        redis = connect(self._redis_url, self._runtime.settings.queue.redis_timeout_s)
        written = None
        while not self._ended.is_set():
            _exit_when_hung(self._worker)
            beat = self._beat()
            try:
                if written not in (None, beat.name):
                    remove_beat(redis, written)
                write_beat(redis, beat, self._runtime.settings.queue.heartbeat_ttl_s)
                _renew_lease(self._worker, redis)
                written = beat.name
            except RedisError as error:
                _LOG.debug("heartbeat not written: %s", error)  # the working thread logs the lost connection
            # Announce models as soon as they have loaded.
            self._news.wait(_BEAT_EVERY_S if self._runtime.model_versions or beat.problem else 0.2)
            self._news.clear()
        redis.close()

    def _beat(self) -> WorkerBeat:
        runtime, worker = self._runtime, self._worker
        if len(runtime.model_versions) < len(runtime.queues):
            state = "broken" if runtime.problem else "starting"
        else:
            state = "idle" if worker is None or worker.busy_since is None else "busy"
        return WorkerBeat(
            name=self.name,
            queues=runtime.queues,
            pid=os.getpid(),
            host=socket.gethostname(),
            device=runtime.device,
            state=state,
            model_versions=runtime.model_versions,
            problem=runtime.problem,
            serving=runtime.serving,
        )

    def _remove_beat(self) -> None:
        """Delete the heartbeat, so that the queue stops using this worker immediately."""
        try:
            with connect(self._redis_url, self._runtime.settings.queue.redis_timeout_s) as redis:
                remove_beat(redis, self.name)
        except RedisError as error:
            _LOG.info("the heartbeat is not deleted, Redis does not answer: %s", error)


def _refuse(job: Job, redis: Redis) -> None:
    """Fail a job whose function this release does not have, instead of importing the path that it names.

    Raises:
        UnknownJob: always.
    """
    message = (
        f"job {job.id} asks for {job.func_name!r}, which this worker does not know: the process that sent it is of "
        "another release; restart backend and workers from the same release"
    )
    record_failure(redis, f"UnknownJob: {message}", None, "worker")
    raise UnknownJob(message)


def _renew_lease(worker: InterruptibleWorker | None, redis: Redis) -> None:
    """Renew the leases of the running jobs."""
    if worker is None:
        return
    pipeline = redis.pipeline()
    for execution, queue in worker.leases:
        execution.heartbeat(queue.started_job_registry, _JOB_LEASE_S, pipeline=pipeline)
    pipeline.execute()


def _exit_when_hung(worker: InterruptibleWorker | None) -> None:
    """End the process when a job exceeds its time limit; RQ's alarm does not interrupt a stuck GPU kernel."""
    busy = None if worker is None else worker.busy_since
    if busy is not None and time.monotonic() - busy[0] > busy[1] + _HUNG_GRACE_S:
        _LOG.critical("a job exceeds its time limit by %.0f s and does not react; ending the process", _HUNG_GRACE_S)
        os._exit(os.EX_SOFTWARE)


def handle_early_signal(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001 - signal's signature
    """Stop the worker at a signal before RQ has installed its handlers (models load, Redis is down)."""
    raise StopRequested
