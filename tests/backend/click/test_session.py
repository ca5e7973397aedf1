"""Session records in a real Redis."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from redis import Redis

from backend.click import session
from backend.click.session import SessionStore
from job_queue.contracts import PromptPoint, Question
from job_queue.errors import QueueUnavailable
from job_queue.mask_codec import encode_mask
from job_queue.queue import connect
from tests.support.click_fakes import BALL, DOT, region_record

pytestmark = pytest.mark.redis

RECORD = region_record(
    "r1", BALL, object_mask=encode_mask(DOT), answered_at=5.0, label="Object",
    points=(PromptPoint(1.5, 2.5, False),), prompt_ids=("p1",),
    box_px_xyxy=(1.0, 2.0, 3.0, 4.0), sent={"category": ["ball"], "group": [["a", "b"]]},
    questions=(Question("category", "What is {region}?", choices=("ball",)),), describe_job="j1", annotator="ann",
)  # fmt: skip


@pytest.fixture
def store(redis_client: Redis) -> SessionStore:
    return SessionStore(redis_client, ttl_s=60)


def test_a_record_comes_back_as_it_was(store: SessionStore) -> None:
    store.save("7", RECORD)
    assert store.load("7") == {"r1": RECORD}
    assert store.load("8") == {}


def test_two_annotators_of_a_task_do_not_undo_each_other(store: SessionStore, redis_client: Redis) -> None:
    other = SessionStore(redis_client, ttl_s=60)
    store.save("7", RECORD)
    other.save("7", replace(RECORD, region=replace(RECORD.region, region_id="r2"), answered_at=4.0))
    store.save("7", replace(RECORD, region=replace(RECORD.region, label="Part")))
    labels = {region_id: record.region.label for region_id, record in store.load("7").items()}
    assert labels == {"r2": "Object", "r1": "Part"}


def test_records_come_oldest_first_and_the_oldest_go(store: SessionStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_MAX_RECORDS", 2)
    for idx in (3, 1, 2):
        store.save("7", region_record(f"r{idx}", answered_at=float(idx)))
    assert list(store.load("7")) == ["r2", "r3"]


def test_records_end_with_their_time(store: SessionStore, redis_client: Redis) -> None:
    store.save("7", RECORD)
    assert 0 < redis_client.ttl("osprey:session:7") <= 60
    store.forget("7")
    assert store.load("7") == {}


def test_a_record_of_another_release_is_passed_over(store: SessionStore, redis_client: Redis) -> None:
    store.save("7", RECORD)
    redis_client.hset("osprey:session:7", "old", '{"version": 0}')
    redis_client.hset("osprey:session:7", "broken", "no json")
    redis_client.hset("osprey:session:7", "list", "[]")
    redis_client.hset("osprey:session:7", "later", json.dumps({**RECORD.to_json(), "version": 2}))
    assert list(store.load("7")) == ["r1"]


def test_a_redis_that_is_away_is_named(own_redis_server: Any) -> None:
    store = SessionStore(connect(own_redis_server.url, 0.5), ttl_s=60)
    own_redis_server.stop()
    with pytest.raises(QueueUnavailable, match="OSPREY_REDIS_URL"):
        store.load("7")
    with pytest.raises(QueueUnavailable):
        store.save("7", RECORD)
