"""The served model version, and the last one while no worker runs."""

from __future__ import annotations

from typing import Any

import pytest
from redis import Redis

from backend import served_version
from backend.served_version import NEVER_SEEN, ServedVersion
from job_queue.queue import connect
from tests.support.click_fakes import FakeQueue

pytestmark = pytest.mark.redis


@pytest.fixture(autouse=True)
def _ask_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served_version, "_FRESH_S", -1.0)


def test_it_is_what_the_workers_serve(redis_client: Redis) -> None:
    queue = FakeQueue()
    served = ServedVersion(queue, redis_client)
    assert served.current() == "osprey-nano-1"
    queue.versions = ("osprey-nano-2",)
    assert served.current() == "osprey-nano-2"


def test_without_workers_the_last_one_stays_also_over_a_restart(redis_client: Redis) -> None:
    queue = FakeQueue()
    ServedVersion(queue, redis_client).current()
    queue.versions = ()
    assert ServedVersion(queue, redis_client).current() == "osprey-nano-1"


def test_before_the_first_worker_there_is_a_name(redis_client: Redis) -> None:
    queue = FakeQueue()
    queue.versions = ()
    assert ServedVersion(queue, redis_client).current() == NEVER_SEEN


def test_a_redis_that_is_away_changes_nothing(own_redis_server: Any) -> None:
    own_redis_server.stop()
    assert ServedVersion(FakeQueue(), connect(own_redis_server.url, 0.5)).current() == "osprey-nano-1"
