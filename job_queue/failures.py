"""The last things that went wrong, for `osprey status`: one bounded list that both sides write to."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from datetime import UTC, datetime

from redis import Redis

_KEY = "osprey:failures"
_KEPT = 100
_MAX_MESSAGE = 1000


@dataclass(frozen=True, slots=True)
class Failure:
    """One thing that went wrong and was shown to somebody."""

    at: str  # ISO 8601, UTC
    where: str
    task_id: int | None
    message: str


def record_failure(redis: Redis, message: str, task_id: int | None, where: str) -> None:
    """Add a failure; the oldest beyond a hundred are dropped."""
    failure = Failure(datetime.now(UTC).isoformat(timespec="seconds"), where, task_id, message[:_MAX_MESSAGE])
    pipeline = redis.pipeline(transaction=False)
    pipeline.lpush(_KEY, json.dumps(dataclasses.asdict(failure)))
    pipeline.ltrim(_KEY, 0, _KEPT - 1)
    pipeline.execute()


def recent_failures(redis: Redis, limit: int) -> tuple[Failure, ...]:
    """The latest `limit` failures, newest first."""
    return tuple(Failure(**json.loads(line)) for line in redis.lrange(_KEY, 0, limit - 1))
