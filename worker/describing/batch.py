"""Describe jobs that run together: while the engine decodes one job, waiting clicks join it between two tokens.

RQ runs one job at a time. Here a job is *taken* (dequeued, leased, marked as started) when its questions enter the
engine's session. RQ *performs* it only when its answers are complete, and `worker.jobs.describe` then finds them
ready. Results, lifetimes, retries and failures are therefore RQ's own for every job. If the worker dies in between, the
leases expire, as with a single job.
"""

from __future__ import annotations

import logging
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Protocol

from redis import Redis
from redis.exceptions import RedisError
from rq import Queue
from rq.exceptions import NoSuchJobError
from rq.executions import Execution
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.timeouts import JobTimeoutException

from job_queue.contracts import DescribeJob
from job_queue.errors import OspreyError
from job_queue.job_kinds import rq_queue_name
from worker.describing.run import BACKGROUND, INTERACTIVE, DescribeRun, Stopwatch
from worker.images.resolver import ResolvedImage
from worker.model_protocols import DescribeSession
from worker.runtime import ModelRuntime

_LOG = logging.getLogger(__name__)

DESCRIBE = "worker.jobs.describe"
_MOST_TOGETHER = 16
_LOOK_EVERY_S = 0.005  # how often to look for waiting jobs; a small part of a token's time
_IMAGE_SLICE_S = 0.02


class BatchWorker(Protocol):
    """The part of `worker.queue_worker.InterruptibleWorker` that a batch uses."""

    connection: Redis
    execution: Execution | None
    is_stopping: bool
    should_run_maintenance_tasks: bool

    def prepare_execution(self, job: Job) -> Execution: ...

    def prepare_job_execution(self, job: Job) -> None: ...

    def perform_job(self, job: Job, queue: Queue) -> bool: ...


@dataclass(frozen=True, slots=True, eq=False)
class _Taken:
    """A job in the engine. `started` and `deadline` are times of the monotonic clock."""

    job: Job
    queue: Queue
    execution: Execution
    run: DescribeRun
    started: float
    deadline: float


class DescribeBatch:
    """The jobs that one worker describes together; `run` returns when none is left."""

    def __init__(self, worker: BatchWorker, runtime: ModelRuntime) -> None:
        self._worker = worker
        self._runtime = runtime
        self._taken: list[_Taken] = []
        self._between: tuple[Execution, Queue] | None = None  # a click on the mask queue, run between two tokens
        self._looked = 0.0
        # Images are fetched in a thread, so that a slow one does not delay the tokens of other jobs.
        self._fetching = ThreadPoolExecutor(1, thread_name_prefix="image")
        self._interactive = {
            queue.key: queue
            for name in runtime.queues
            for queue in [Queue(rq_queue_name(name), connection=worker.connection, serializer=JSONSerializer)]
        }

    @property
    def leases(self) -> list[tuple[Execution, Queue]]:
        """The executions of all jobs that run, for the thread that renews their leases."""
        between = self._between
        return [(taken.execution, taken.queue) for taken in list(self._taken)] + ([between] if between else [])

    @property
    def busy_since(self) -> tuple[float, float] | None:
        """When the oldest running job was taken, and its time limit in seconds; None if there is none."""
        oldest = min(list(self._taken), key=lambda taken: taken.started, default=None)
        return None if oldest is None else (oldest.started, oldest.deadline - oldest.started)

    def run(self, job: Job, queue: Queue) -> None:
        """Describe a dequeued job together with the clicks that arrive in the meantime."""
        try:
            self._take(job, queue)
            while self._taken:
                self._join()
                self._step()
                for taken in [taken for taken in self._taken if taken.run.is_ended]:
                    self._finish(taken)
        finally:  # if Redis failed or the process must end at once, jobs are left and their leases expire
            for taken in self._taken:
                taken.run.withdraw()
            self._taken.clear()

    def close(self) -> None:
        """Stop the thread that fetches images."""
        self._fetching.shutdown(wait=False, cancel_futures=True)

    def _take(self, job: Job, queue: Queue) -> None:
        """Lease a dequeued job and start fetching its image."""
        watch = Stopwatch(job)
        execution = self._worker.prepare_execution(job)
        self._worker.prepare_job_execution(job)
        self._worker.connection.persist(job.key)  # as RQ does when a job starts: only waiting jobs expire
        try:
            if not self._taken:  # after leasing the job, so that it is not lost if the worker is killed while loading
                self._runtime.follow_champion()
                watch.lap("switch")
            contract = DescribeJob.from_json(job.args[0])
            session = self._runtime.describer.session()
        except (ValueError, TypeError, IndexError, OspreyError):  # performing the job alone reports the error
            self._worker.perform_job(job, queue)
            return
        is_click = queue.key in self._interactive
        image: Future[ResolvedImage] = self._fetching.submit(
            self._runtime.images.resolve, contract.image, contract.image_wh
        )
        priority = INTERACTIVE if is_click else BACKGROUND
        run = DescribeRun(self._runtime, session, contract, job, watch, image, priority)
        now = time.monotonic()
        self._taken.append(_Taken(job, queue, execution, run, now, now + float(job.timeout or 0)))

    def _join(self) -> None:
        """Take clicks that wait, unless the worker is stopping or maintenance is due: then the batch must end."""
        now = time.monotonic()
        if now - self._looked < _LOOK_EVERY_S:
            return
        self._looked = now
        while (
            len(self._taken) < _MOST_TOGETHER
            and not self._worker.is_stopping
            and not self._worker.should_run_maintenance_tasks
        ):
            found = Queue.lpop(list(self._interactive), None, connection=self._worker.connection)
            if found is None:
                return
            key, job_id = (part.decode() if isinstance(part, bytes) else part for part in found)
            queue = self._interactive[key]
            try:
                job = Job.fetch(job_id, connection=self._worker.connection, serializer=JSONSerializer)
            except NoSuchJobError:  # the job expired while waiting
                continue
            if job.func_name == DESCRIBE:
                self._take(job, queue)
            else:
                self._run_between(job, queue)

    def _run_between(self, job: Job, queue: Queue) -> None:
        """Run a click that waits for its mask; it is short, so the running batch pauses for it."""
        self._between = (self._worker.prepare_execution(job), queue)
        try:
            self._worker.perform_job(job, queue)
        finally:
            self._between = None

    def _step(self) -> None:
        """Decode one token of every active row; fail jobs that exceed their time limit."""
        for taken in self._taken:
            if time.monotonic() > taken.deadline:
                limit_s = taken.deadline - taken.started
                taken.run.fail(JobTimeoutException(f"the job took longer than {limit_s:.0f} s"))
            taken.run.advance()
        session = self._session()
        if session is None:
            return
        if session.is_idle:
            images = [image for taken in self._taken if (image := taken.run.awaited_image) is not None]
            if images:
                wait(images, _IMAGE_SLICE_S, FIRST_COMPLETED)
            return
        try:
            session.step()
        except RedisError:
            raise  # without Redis no job can be finished
        except Exception as error:
            _LOG.exception("a step of %d jobs failed; each of them is run alone", len(self._taken))
            self._separate(error)
        for taken in self._taken:
            taken.run.advance()

    def _session(self) -> DescribeSession | None:
        return self._runtime.describer.session() if self._taken else None

    def _separate(self, error: Exception) -> None:
        """Rerun the jobs one at a time after a failed step, so that only the one that is too large fails."""
        together, self._taken = self._taken, []
        for taken in together:
            taken.run.withdraw()
        self._runtime.describer.forget_session()
        if len(together) == 1:
            together[0].run.fail(error)
        for taken in together:
            self._between = (taken.execution, taken.queue)
            try:
                self._perform(taken, ready=len(together) == 1)
            finally:
                self._between = None

    def _finish(self, taken: _Taken) -> None:
        self._taken.remove(taken)
        self._perform(taken, ready=True)

    def _perform(self, taken: _Taken, *, ready: bool) -> None:
        if ready:
            self._runtime.ready[taken.job.id] = taken.run.answer
        self._worker.execution = taken.execution
        try:
            self._worker.perform_job(taken.job, taken.queue)
        finally:
            self._runtime.ready.pop(taken.job.id, None)
