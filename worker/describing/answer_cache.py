"""Answers by what was asked: same image, same mask, same question, same model -> no second run."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Sequence

from redis import Redis

from job_queue.contracts import FieldAnswer, Question, Rle

_TTL_S = 86_400


def answer_key(image_sha256: str, masks: Sequence[Rle], question: Question, model_version: str) -> str:
    """The cache key. The region's id is not part of it: every click makes a new one."""
    asked = [image_sha256, list(masks), question.to_json(), model_version]
    return "osprey:answer:" + hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def read_answers(redis: Redis, keys: Sequence[str]) -> list[FieldAnswer | None]:
    """One answer or None per key, with the region id it was stored under."""
    if not keys:
        return []
    return [None if line is None else FieldAnswer.from_json(json.loads(line)) for line in redis.mget(keys)]


def write_answers(redis: Redis, answers: Iterable[tuple[str, FieldAnswer]]) -> None:
    """Store complete answers for a day."""
    pipeline = redis.pipeline(transaction=False)
    for key, answer in answers:
        pipeline.set(key, json.dumps(answer.to_json()), ex=_TTL_S)
    pipeline.execute()


def for_question(answer: FieldAnswer, region_id: str, question_idx: int) -> FieldAnswer:
    """A cached answer as the answer to a question of this job."""
    return dataclasses.replace(answer, region_id=region_id, question_idx=question_idx)
