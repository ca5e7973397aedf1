"""Claims about heartbeats: they expire, and reading them removes the names of dead workers."""

from __future__ import annotations

import time

import pytest

from job_queue.heartbeat import WORKERS_KEY, WorkerBeat, read_beats, remove_beat, write_beat

pytestmark = pytest.mark.redis


def beat(name: str) -> WorkerBeat:
    return WorkerBeat(name, ("masks",), 1, "here", "cpu", "idle", {"masks": "sam-1"})


def test_beat_comes_back_with_its_age(redis_client):
    write_beat(redis_client, beat("a"), 10)
    time.sleep(0.1)
    (read,) = read_beats(redis_client, 10)
    assert read.queues == ("masks",)
    assert 0.09 < read.age_s < 2


def test_expired_worker_is_gone_and_forgotten(redis_client):
    write_beat(redis_client, beat("a"), 0.05)
    write_beat(redis_client, beat("b"), 10)
    time.sleep(0.1)
    assert [one.name for one in read_beats(redis_client, 10)] == ["b"]
    assert redis_client.smembers(WORKERS_KEY) == {b"b"}


def test_removed_heartbeat_is_gone_immediately(redis_client):
    write_beat(redis_client, beat("a"), 10)
    remove_beat(redis_client, "a")
    assert read_beats(redis_client, 10) == ()
