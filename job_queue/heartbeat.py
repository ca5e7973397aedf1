"""What a living worker says about itself every few seconds.

RQ's `SimpleWorker` is silent while a job runs, so the GPU worker's own thread writes these keys and
the queue decides from them whether a click has anybody to serve it. Ages come from the key's
remaining lifetime, so clocks of different machines do not matter.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redis import Redis
from rq.utils import as_text

WORKERS_KEY = "osprey:workers"


@dataclass(frozen=True, slots=True)
class WorkerBeat:
    """One worker's last sign of life. `state` is starting, idle, busy or broken."""

    name: str
    queues: tuple[str, ...]  # "masks", "describe"
    pid: int
    host: str
    device: str
    state: str
    model_versions: dict[str, str]  # queue -> version served; a queue whose model is not loaded is missing
    problem: str | None = None  # why a model does not load
    serving: str | None = None  # the registry's name of the Osprey it serves, `base` without a champion
    age_s: float = 0.0


def beat_key(name: str) -> str:
    """The Redis key of one worker's heartbeat."""
    return f"osprey:worker:{name}"


def write_beat(redis: Redis, beat: WorkerBeat, ttl_s: float) -> None:
    """Say that the worker lives for the next `ttl_s` seconds."""
    pipeline = redis.pipeline(transaction=False)
    pipeline.set(beat_key(beat.name), json.dumps(dataclasses.asdict(beat)), px=int(ttl_s * 1000))
    pipeline.sadd(WORKERS_KEY, beat.name)
    pipeline.execute()


def remove_beat(redis: Redis, name: str) -> None:
    """Say goodbye: the queue stops counting on this worker at once."""
    pipeline = redis.pipeline(transaction=False)
    pipeline.delete(beat_key(name))
    pipeline.srem(WORKERS_KEY, name)
    pipeline.execute()


def read_beats(redis: Redis, ttl_s: float, expected: Sequence[str] = ()) -> tuple[WorkerBeat, ...]:
    """All living workers, by name. Names of dead ones are forgotten on the way.

    Where the workers are those `expected`, which they nearly always are, it takes one trip to Redis instead of two.
    """
    names, replies = _read_names_and(redis, expected)
    if names != sorted(expected):
        _, replies = _read_names_and(redis, names)
    beats, dead = [], []
    for name, payload, left_ms in zip(names, replies[0::2], replies[1::2], strict=True):
        if payload is None:
            dead.append(name)
            continue
        data = json.loads(payload)
        data["queues"] = tuple(data["queues"])
        data["age_s"] = max(0.0, ttl_s - left_ms / 1000)
        beats.append(WorkerBeat(**data))
    if dead:
        redis.srem(WORKERS_KEY, *dead)
    return tuple(beats)


def _read_names_and(redis: Redis, wanted: Sequence[str]) -> tuple[list[str], list[Any]]:
    """All workers' names, sorted, and of the `wanted` ones (sorted too) payload and remaining lifetime in turn."""
    pipeline = redis.pipeline(transaction=False)
    pipeline.smembers(WORKERS_KEY)
    for name in sorted(wanted):
        pipeline.get(beat_key(name))
        pipeline.pttl(beat_key(name))
    names, *replies = pipeline.execute()
    return sorted(str(as_text(name)) for name in names), replies
