"""The cache of answers, by image, masks, question and model."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Sequence

from redis import Redis

from job_queue.contracts import FieldAnswer, Question, Rle

_TTL_S = 86_400


def answer_key(image_sha256: str, masks: Sequence[Rle], question: Question, model_version: str) -> str:
    """Return the cache key. The region's id is not part of it, because every click makes a new one."""
    asked = [image_sha256, list(masks), question.to_json(), model_version]
    return "osprey:answer:" + hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def read_answers(redis: Redis, keys: Sequence[str]) -> list[FieldAnswer | None]:
    """Read an answer or None per key, each with the region id under which it was stored."""
    if not keys:
        return []
    return [None if line is None else _readable(line) for line in redis.mget(keys)]


def _readable(line: bytes | str) -> FieldAnswer | None:
    """Read a cached answer; None if another release wrote it in a form that this one cannot read."""
    try:
        return FieldAnswer.from_json(json.loads(line))
    except ValueError:
        return None


def write_answers(redis: Redis, answers: Iterable[tuple[str, FieldAnswer]]) -> None:
    """Store complete answers for a day."""
    pipeline = redis.pipeline(transaction=False)
    for key, answer in answers:
        pipeline.set(key, json.dumps(answer.to_json()), ex=_TTL_S)
    pipeline.execute()


def for_question(answer: FieldAnswer, region_id: str, question_idx: int) -> FieldAnswer:
    """Return a cached answer as the answer to a question of this job."""
    return dataclasses.replace(answer, region_id=region_id, question_idx=question_idx)
