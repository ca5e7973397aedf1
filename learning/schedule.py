"""Jobs that start periodically: RQ's cron scheduler in a thread of the `data` worker.

RQ's scheduler enqueues pickled calls and needs the main thread of its process. Here a thread calls it every second, and
its jobs enqueue JSON contracts through `job_queue/queue.py`. If several data workers run, only one of them schedules:
the one that holds a lease in Redis.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from redis import Redis
from redis.exceptions import RedisError
from rq.cron import CronJob, CronScheduler

from job_queue.contracts import ReconcileJob, TriggerJob
from job_queue.errors import OspreyError
from job_queue.job_kinds import DATA_QUEUE, rq_queue_name
from job_queue.queue import enqueue
from job_queue.settings import QueueSettings
from learning.settings import Settings

_LOG = logging.getLogger(__name__)

_LEASE_KEY = "osprey:schedule"
_LEASE_S = 30
_TICK_S = 1.0


@dataclass(frozen=True, slots=True)
class Periodic:
    """A job that is enqueued every `every_s` seconds, or at the times of a cron expression."""

    name: str
    enqueue: Callable[[Redis], object]
    every_s: int | None = None
    cron: str | None = None


def periodic_work(settings: Settings) -> list[Periodic]:
    """Return the periodic jobs that the settings ask for."""
    queue = settings.queue
    return [
        Periodic("reconcile", _submits(queue, ReconcileJob()), every_s=settings.reconcile_s),
        *_training(settings),
        Periodic("reconcile-full", _submits(queue, ReconcileJob(full=True)), every_s=settings.reconcile_full_s),
    ]


def _training(settings: Settings) -> Iterator[Periodic]:
    """Yield the jobs that may start a fine-tune.

    One runs every few minutes and counts the new corrections. The other one runs at a time of the day, and one new
    correction is enough.
    """
    if settings.finetune_after is not None:
        yield Periodic("finetune-by-count", _submits(settings.queue, TriggerJob()), every_s=settings.reconcile_s)
    if settings.finetune_cron is not None:
        job = TriggerJob(at_any_count=True)
        yield Periodic("finetune-by-clock", _submits(settings.queue, job), cron=settings.finetune_cron)


def _submits(settings: QueueSettings, job: ReconcileJob | TriggerJob) -> Callable[[Redis], object]:
    return lambda redis: enqueue(redis, settings, job)


class _Job(CronJob):  # type: ignore[misc]
    """A cron job of RQ that enqueues through `job_queue/queue.py`."""

    def __init__(self, work: Periodic) -> None:
        queue = rq_queue_name(DATA_QUEUE, background=True)
        super().__init__(queue, func_name=work.name, name=work.name, interval=work.every_s, cron=work.cron)
        self._work = work

    def enqueue(self, connection: Redis) -> None:
        """Enqueue the job now. If that fails, the next attempt is at the job's next time."""
        try:
            self._work.enqueue(connection)
        except OspreyError as error:
            _LOG.warning("periodic job %s was not enqueued: %s", self.name, error)


class Schedule:
    """The thread of the scheduler, from `start` to `stop`. It survives restarts of Redis."""

    def __init__(self, redis: Redis, name: str, work: Sequence[Periodic]) -> None:
        self._redis = redis
        self._scheduler = CronScheduler(redis, name=name)
        self._scheduler.get_jobs().extend(_Job(each) for each in work)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="schedule", daemon=True)

    def start(self) -> None:
        """Start the thread. A job that was never enqueued is due immediately."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread and release the lease, so that another worker can schedule immediately."""
        self._stopped.set()
        self._thread.join()

    def tick(self) -> None:
        """Enqueue the jobs that are due, if this process holds the lease."""
        scheduler = self._scheduler
        if not self._holds_lease():
            return
        if scheduler.enqueue_jobs():
            scheduler.save()
        scheduler.heartbeat()

    def _holds_lease(self) -> bool:
        name = self._scheduler.name
        if self._redis.set(_LEASE_KEY, name, nx=True, ex=_LEASE_S):
            return True
        holder = self._redis.get(_LEASE_KEY)
        if (holder.decode() if isinstance(holder, bytes) else holder) != name:
            return False
        return bool(self._redis.expire(_LEASE_KEY, _LEASE_S))

    def _run(self) -> None:
        born: datetime | None = None
        while not self._stopped.is_set():
            try:
                if born is None:
                    self._scheduler.register_birth()
                    born = datetime.now(UTC)
                self.tick()
            except RedisError as error:
                # At debug level, because the thread that runs the jobs reports the lost connection, too.
                _LOG.debug("nothing is scheduled, Redis does not answer: %s", error)
            self._stopped.wait(_TICK_S)
        try:
            if self._holds_lease():
                self._redis.delete(_LEASE_KEY)
            self._scheduler.register_death()
        except RedisError as error:
            _LOG.debug("the lease of the scheduler was not released, Redis does not answer: %s", error)
