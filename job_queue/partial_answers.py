"""The answers of a describe job that are complete before the whole job is: one Redis hash per job, written once."""

from __future__ import annotations

import json

from redis import Redis

from job_queue.contracts import FieldAnswer


def partial_key(job_id: str) -> str:
    """Return the Redis key of the hash that a describe job fills while it runs."""
    return f"osprey:partial:{job_id}"


def publish_answer(redis: Redis, job_id: str, region_idx: int, answer: FieldAnswer, ttl_s: int) -> None:
    """Publish one answer. A second run of the same job does not overwrite the answers of the first one."""
    pipeline = redis.pipeline(transaction=False)
    place = f"{region_idx:05d}:{answer.question_idx:05d}"  # sorts in the order of the job's regions and questions
    pipeline.hsetnx(partial_key(job_id), place, json.dumps(answer.to_json()))
    pipeline.expire(partial_key(job_id), ttl_s)
    pipeline.execute()


def read_partial_answers(redis: Redis, job_id: str) -> tuple[FieldAnswer, ...]:
    """Return the answers published so far, in the order of the job's regions and questions."""
    published = redis.hgetall(partial_key(job_id))
    return tuple(FieldAnswer.from_json(json.loads(published[place])) for place in sorted(published))
