"""The last failures, for `osprey status`: one bounded list in Redis that backend and workers write to."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from redis import Redis

from job_queue.records import read_record, write_record

_KEY = "osprey:failures"
_KEPT = 100
_MAX_MESSAGE = 1000


@dataclass(frozen=True, slots=True)
class Failure:
    """One failure, as it was shown to an annotator or written to the log."""

    at: str  # ISO 8601, UTC
    where: str
    task_id: int | None = None
    message: str = ""


def record_failure(redis: Redis, message: str, task_id: int | None, where: str) -> None:
    """Add a failure and drop all but the last hundred."""
    failure = Failure(datetime.now(UTC).isoformat(timespec="seconds"), where, task_id, message[:_MAX_MESSAGE])
    pipeline = redis.pipeline(transaction=False)
    pipeline.lpush(_KEY, write_record(failure))
    pipeline.ltrim(_KEY, 0, _KEPT - 1)
    pipeline.execute()


def recent_failures(redis: Redis, limit: int) -> tuple[Failure, ...]:
    """Read the latest `limit` failures, newest first."""
    read = (read_record(Failure, line) for line in redis.lrange(_KEY, 0, limit - 1))
    return tuple(failure for failure in read if failure is not None)
