"""Claims about records in Redis: earlier and later releases can read them."""

from __future__ import annotations

import json

import pytest

from job_queue.failures import Failure, recent_failures
from job_queue.finetune_progress import FineTuneProgress, read_progress
from job_queue.heartbeat import WORKERS_KEY, WorkerBeat, beat_key, read_beats, write_beat
from job_queue.records import read_record, write_record
from worker.prelabel.runs import RunState

BEAT = WorkerBeat("w", ("masks",), 1, "host", "cpu", "idle", {"masks": "sam-1"})


@pytest.mark.parametrize(
    ("record", "least"),
    [
        (BEAT, {"name": "w"}),
        (Failure("2026-11-28T00:00:00", "backend", 1, "gone"), {"at": "2026-11-28T00:00:00", "where": "backend"}),
        (FineTuneProgress(3, "train", 1, 10, 5.0, 6.0), {"project_id": 3}),
        (RunState(open=3, pushed=2), {}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_unknown_keys_are_ignored_and_missing_ones_take_their_default(record, least):
    """An additional key is ignored, and the fields without a default are enough."""
    kind = type(record)
    assert read_record(kind, json.dumps({**json.loads(write_record(record)), "later": {"a": 1}})) == record
    assert read_record(kind, json.dumps(least)) == kind(**least)


@pytest.mark.parametrize("text", ["", "[]", "1", "null", '{"queues": 3}'])
def test_text_that_is_no_record_gives_none(text):
    """Text that another program wrote under the key gives None."""
    assert read_record(WorkerBeat, text) is None


@pytest.mark.redis
def test_heartbeat_of_a_later_release_counts(redis_client):
    """A heartbeat with an additional key counts, and one that cannot be read does not hide the others."""
    write_beat(redis_client, BEAT, 10.0)
    later = {**json.loads(redis_client.get(beat_key("w"))), "name": "later", "gpu_memory": [1, 2]}
    redis_client.set(beat_key("later"), json.dumps(later), px=10_000)
    redis_client.set(beat_key("broken"), "{", px=10_000)
    redis_client.sadd(WORKERS_KEY, "later", "broken")
    assert [beat.name for beat in read_beats(redis_client, 10.0)] == ["later", "w"]


@pytest.mark.redis
def test_failures_and_progress_of_another_release(redis_client):
    """Stored failures that cannot be read are skipped."""
    redis_client.rpush("osprey:failures", '{"at": "now", "where": "worker", "later": 1}', "no JSON")
    assert recent_failures(redis_client, 10) == (Failure("now", "worker"),)
    redis_client.set("osprey:finetune", '{"project_id": 4, "later": 1}')
    assert read_progress(redis_client) == FineTuneProgress(4)
