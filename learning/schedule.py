"""What happens by the clock: RQ's own cron scheduler, as a thread of the `data` worker.

RQ's scheduler enqueues with pickle and as its process's main thread; here it enqueues JSON contracts through
`job_queue/queue.py` and is asked every second. Of several data workers one schedules: it holds a lease in Redis.
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
    """A piece of work that is enqueued every `every_s` seconds, or by a cron expression."""

    name: str
    enqueue: Callable[[Redis], object]
    every_s: int | None = None
    cron: str | None = None


def periodic_work(settings: Settings) -> list[Periodic]:
    """Everything that the settings ask for."""
    queue = settings.queue
    return [
        Periodic("reconcile", _submits(queue, ReconcileJob()), every_s=settings.reconcile_s),
        *_training(settings),
        Periodic("reconcile-full", _submits(queue, ReconcileJob(full=True)), every_s=settings.reconcile_full_s),
    ]


def _training(settings: Settings) -> Iterator[Periodic]:
    """Looks for corrections to learn from: every few minutes by their number, at a time of the day whatever is new."""
    if settings.finetune_after is not None:
        yield Periodic("finetune-by-count", _submits(settings.queue, TriggerJob()), every_s=settings.reconcile_s)
    if settings.finetune_cron is not None:
        job = TriggerJob(at_any_count=True)
        yield Periodic("finetune-by-clock", _submits(settings.queue, job), cron=settings.finetune_cron)


def _submits(settings: QueueSettings, job: ReconcileJob | TriggerJob) -> Callable[[Redis], object]:
    return lambda redis: enqueue(redis, settings, job)


class _Job(CronJob):  # type: ignore[misc]
    """RQ's cron job that enqueues through our queue."""

    def __init__(self, work: Periodic) -> None:
        queue = rq_queue_name(DATA_QUEUE, background=True)
        super().__init__(queue, func_name=work.name, name=work.name, interval=work.every_s, cron=work.cron)
        self._work = work

    def enqueue(self, connection: Redis) -> None:
        """Enqueue now; what cannot be enqueued is due again at its next time."""
        try:
            self._work.enqueue(connection)
        except OspreyError as error:
            _LOG.warning("%s is not enqueued: %s", self.name, error)


class Schedule:
    """The scheduler's thread, from `start` to `stop`. Redis may go away and come back."""

    def __init__(self, redis: Redis, name: str, work: Sequence[Periodic]) -> None:
        self._redis = redis
        self._scheduler = CronScheduler(redis, name=name)
        self._scheduler.get_jobs().extend(_Job(each) for each in work)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="schedule", daemon=True)

    def start(self) -> None:
        """Begin; work that was never enqueued is due at once."""
        self._thread.start()

    def stop(self) -> None:
        """End, and let another worker schedule at once."""
        self._stopped.set()
        self._thread.join()

    def tick(self) -> None:
        """Enqueue what is due, if this process holds the lease."""
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
                _LOG.debug("nothing is scheduled, Redis is away: %s", error)  # the working thread logs and waits
            self._stopped.wait(_TICK_S)
        try:
            if self._holds_lease():
                self._redis.delete(_LEASE_KEY)
            self._scheduler.register_death()
        except RedisError as error:
            _LOG.debug("the scheduler left without a goodbye: %s", error)
