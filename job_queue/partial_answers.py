"""Answers of a describe job that are ready before the whole job is: a Redis hash per job, write-once."""

from __future__ import annotations

import json

from redis import Redis

from job_queue.contracts import FieldAnswer


def partial_key(job_id: str) -> str:
    """The hash that a describe job fills while it runs."""
    return f"osprey:partial:{job_id}"


def publish_answer(redis: Redis, job_id: str, region_idx: int, answer: FieldAnswer, ttl_s: int) -> None:
    """Make one answer readable. A second run of the same job does not overwrite the first's."""
    pipeline = redis.pipeline(transaction=False)
    place = f"{region_idx:05d}:{answer.question_idx:05d}"  # sorts as the job's regions and questions
    pipeline.hsetnx(partial_key(job_id), place, json.dumps(answer.to_json()))
    pipeline.expire(partial_key(job_id), ttl_s)
    pipeline.execute()


def read_partial_answers(redis: Redis, job_id: str) -> tuple[FieldAnswer, ...]:
    """The answers published so far, in the order of the job's regions and questions."""
    published = redis.hgetall(partial_key(job_id))
    return tuple(FieldAnswer.from_json(json.loads(published[place])) for place in sorted(published))
