"""The heartbeat that each worker writes to Redis every few seconds.

RQ's `SimpleWorker` sends none while a job runs, so a thread of our worker writes these keys. The queue reads them to
decide whether a click can be answered. The age of a heartbeat is computed from the key's remaining lifetime, so that
the machines may have different clocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from redis import Redis
from rq.utils import as_text

from job_queue.records import read_record, write_record

WORKERS_KEY = "osprey:workers"


@dataclass(frozen=True, slots=True)
class WorkerBeat:
    """The last heartbeat of one worker. `state` is starting, idle, busy or broken."""

    name: str
    queues: tuple[str, ...] = ()  # "masks", "describe"
    pid: int = 0
    host: str = ""
    device: str = ""
    state: str = "starting"
    model_versions: dict[str, str] = field(default_factory=dict)  # queue -> version; no entry: no model is loaded
    problem: str | None = None  # why a model does not load
    serving: str | None = None  # the name of the served version in the registry, `base` without a champion
    age_s: float = 0.0


def beat_key(name: str) -> str:
    """Return the Redis key of one worker's heartbeat."""
    return f"osprey:worker:{name}"


def write_beat(redis: Redis, beat: WorkerBeat, ttl_s: float) -> None:
    """Write a heartbeat that is valid for `ttl_s` seconds."""
    pipeline = redis.pipeline(transaction=False)
    pipeline.set(beat_key(beat.name), write_record(beat), px=int(ttl_s * 1000))
    pipeline.sadd(WORKERS_KEY, beat.name)
    pipeline.execute()


def remove_beat(redis: Redis, name: str) -> None:
    """Delete the heartbeat so that the queue stops using this worker immediately."""
    pipeline = redis.pipeline(transaction=False)
    pipeline.delete(beat_key(name))
    pipeline.srem(WORKERS_KEY, name)
    pipeline.execute()


def read_beats(redis: Redis, ttl_s: float, expected: Sequence[str] = ()) -> tuple[WorkerBeat, ...]:
    """Read the heartbeats of all living workers, sorted by name, and remove the names of dead ones.

    If the workers are those `expected`, one round trip to Redis is enough; otherwise it takes two. A heartbeat that
    this release cannot read is skipped, because its worker cannot answer our jobs.
    """
    names, replies = _read_names_and(redis, expected)
    if names != sorted(expected):
        _, replies = _read_names_and(redis, names)
    beats, dead = [], []
    for name, payload, left_ms in zip(names, replies[0::2], replies[1::2], strict=True):
        if payload is None:
            dead.append(name)
            continue
        beat = read_record(WorkerBeat, payload, age_s=max(0.0, ttl_s - left_ms / 1000))
        if beat is not None:
            beats.append(beat)
    if dead:
        redis.srem(WORKERS_KEY, *dead)
    return tuple(beats)


def _read_names_and(redis: Redis, wanted: Sequence[str]) -> tuple[list[str], list[Any]]:
    """Read the names of all workers, and the heartbeats of the `wanted` ones, in one round trip.

    Returns:
        The names, sorted; and for each wanted name, in sorted order: its payload, its remaining lifetime in ms.
    """
    pipeline = redis.pipeline(transaction=False)
    pipeline.smembers(WORKERS_KEY)
    for name in sorted(wanted):
        pipeline.get(beat_key(name))
        pipeline.pttl(beat_key(name))
    names, *replies = pipeline.execute()
    return sorted(str(as_text(name)) for name in names), replies
