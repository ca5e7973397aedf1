"""What this backend answered, per task: Label Studio's drafts lag about 5 s behind the page, and know no prompts.

Records live in one Redis hash per task, keyed by region id: two annotators of one task write different fields of
it, so neither can undo the other's record.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from worker.contracts import Contract, PromptPoint, Question, Rle
from worker.errors import QueueUnavailable

logger = logging.getLogger(__name__)

_MAX_RECORDS = 300  # per task; the oldest go first


@dataclass(frozen=True, slots=True)
class RegionRecord(Contract):
    """One region as this backend last answered it.

    `mask` is the region's, `object_mask` that of the object it is a part of (None for an object). `prompt_ids` are
    the ids of `points`, one each. `active_label` was active in the page when the region was
    answered. `sent` holds each field's value exactly as it was sent, so that a later difference
    is the annotator's. `describe_job` (asking `questions`) is set while words are still awaited. `described` is False
    as long as the fields were not all answered, `blind` where they are not shown.
    `annotator` is the user of the request's drafts, None while there
    was no draft. `answered_at` is seconds since the epoch.
    """

    region_id: str
    image_wh: tuple[int, int]
    mask: Rle
    score: float
    answered_at: float
    label: str | None = None
    active_label: str | None = None
    parent_id: str | None = None
    object_mask: Rle | None = None
    points: tuple[PromptPoint, ...] = ()
    prompt_ids: tuple[str, ...] = ()
    box_px_xyxy: tuple[float, float, float, float] | None = None
    logits_id: str | None = None
    origin: str = "prediction"
    sent: dict[str, list[Any]] = field(default_factory=dict)
    model_version: str | None = None
    segmenter_version: str | None = None
    describe_job: str | None = None
    questions: tuple[Question, ...] = ()
    described: bool = False
    blind: bool = False
    annotator: str | None = None

    @property
    def is_part(self) -> bool:
        return self.object_mask is not None


class SessionStore:
    """The records of each task. Safe to share between threads."""

    def __init__(self, redis: Redis, ttl_s: int) -> None:
        self._redis = redis
        self._ttl_s = ttl_s

    def load(self, task_key: str) -> dict[str, RegionRecord]:
        """All records of a task by region id, oldest answer first.

        Raises:
            QueueUnavailable: Redis does not answer.
        """
        with _named_redis_errors():
            stored = self._redis.hgetall(_key(task_key))
        records = []
        for text in stored.values():
            try:
                records.append(RegionRecord.from_json(json.loads(text)))
            except (ValueError, TypeError, KeyError) as error:  # written by another release
                logger.warning("a session record of task %s is not read: %s", task_key, error)
        return {record.region_id: record for record in sorted(records, key=lambda record: record.answered_at)}

    def save(self, task_key: str, record: RegionRecord) -> None:
        """Keep or replace one region's record.

        Raises:
            QueueUnavailable: Redis does not answer.
        """
        key = _key(task_key)
        with _named_redis_errors():
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.hset(key, record.region_id, json.dumps(record.to_json()))
            pipeline.expire(key, self._ttl_s)
            pipeline.hlen(key)
            *_, count = pipeline.execute()
        if count > _MAX_RECORDS:
            oldest = list(self.load(task_key))[: count - _MAX_RECORDS]
            with _named_redis_errors():
                self._redis.hdel(key, *oldest)

    def forget(self, task_key: str) -> None:
        """Drop a task's records (it was deleted)."""
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
