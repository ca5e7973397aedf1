"""The regions that the backend answered, by task: Label Studio's drafts lag about 5 s and hold no prompts.

Each task has one Redis hash, keyed by region id. Two annotators of one task write different keys of it, so neither
overwrites the other's record.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from redis import Redis
from redis.exceptions import RedisError

from backend.click.region import RegionRecord
from job_queue.errors import QueueUnavailable

logger = logging.getLogger(__name__)

_MAX_RECORDS = 300  # per task; the oldest go first


class SessionStore:
    """The records of each task. Safe to share between threads."""

    def __init__(self, redis: Redis, ttl_s: int) -> None:
        self._redis = redis
        self._ttl_s = ttl_s

    def load(self, task_key: str) -> dict[str, RegionRecord]:
        """Return all records of a task by region id, oldest answer first.

        Raises:
            QueueUnavailable: Redis does not answer.
        """
        with _named_redis_errors():
            stored = self._redis.hgetall(_key(task_key))
        records = []
        for text in stored.values():
            try:
                records.append(RegionRecord.from_json(json.loads(text)))
            except (ValueError, TypeError, KeyError, AttributeError) as error:  # damaged, or of a later release
                logger.warning("a session record of task %s cannot be read: %s", task_key, error)
        return {record.region.region_id: record for record in sorted(records, key=lambda record: record.answered_at)}

    def save(self, task_key: str, record: RegionRecord) -> None:
        """Store one region's record, in place of an earlier one.

        Raises:
            QueueUnavailable: Redis does not answer.
        """
        key = _key(task_key)
        with _named_redis_errors():
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.hset(key, record.region.region_id, json.dumps(record.to_json()))
            pipeline.expire(key, self._ttl_s)
            pipeline.hlen(key)
            *_, count = pipeline.execute()
        if count > _MAX_RECORDS:
            oldest = list(self.load(task_key))[: count - _MAX_RECORDS]
            with _named_redis_errors():
                self._redis.hdel(key, *oldest)

    def forget(self, task_key: str) -> None:
        """Delete a task's records."""
        with _named_redis_errors():
            self._redis.delete(_key(task_key))


def _key(task_key: str) -> str:
    return f"osprey:session:{task_key}"


@contextmanager
def _named_redis_errors() -> Iterator[None]:
    try:
        yield
    except RedisError as error:
        raise QueueUnavailable(
            f"the session memory (Redis) does not answer: {type(error).__name__}: {error}; check that Redis runs "
            "and that OSPREY_REDIS_URL names its address and password"
        ) from error
