"""Claims about embeddings in a real Redis: values come back unchanged, damage is detected, bytes are bounded."""

import logging
import threading

import numpy as np
import pytest
from redis import Redis

from worker.sam.embedding_store import Embedding, EmbeddingStore

pytestmark = pytest.mark.redis


def embedding(seed=0, side=8):
    values = np.random.default_rng(seed).normal(size=(4, side, side)).astype(np.float16)
    return Embedding({"features": values}, (48, 64))


def equal(a, b):
    return a.image_hw == b.image_hw and all((a.arrays[name] == b.arrays[name]).all() for name in a.arrays)


@pytest.fixture
def store(redis_client):
    return EmbeddingStore(redis_client, ttl_s=60, max_bytes=1_000_000)


def the_key(redis_client):
    (key,) = redis_client.keys("osprey:embedding:*")
    return key


def test_what_was_stored_comes_back_for_that_model_and_image_only(store):
    mine = embedding()
    assert store.put("sam-1", "aa", mine) is mine
    assert equal(store.get("sam-1", "aa"), mine)
    assert store.get("sam-2", "aa") is None
    assert store.get("sam-1", "bb") is None


def test_several_arrays_keep_their_names(store):
    """An embedding of several levels comes back with all of its arrays."""
    levels = {name: np.full((2, 3, size), size, np.float16) for name, size in (("high", 16), ("low", 4))}
    store.put("sam-2", "aa", Embedding(levels, (9000, 12000)))
    assert equal(store.get("sam-2", "aa"), Embedding(levels, (9000, 12000)))


def test_the_first_one_stands(store):
    """A slower worker receives the embedding that all others decode."""
    first, second = embedding(1), embedding(2)
    store.put("sam-1", "aa", first)
    assert equal(store.put("sam-1", "aa", second), first)
    assert equal(store.get("sam-1", "aa"), first)


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "text", "foreign"])
def test_a_damaged_value_is_logged_and_replaced(store, redis_client, caplog, damage):
    """Any change of a value is detected, and the next put replaces it."""
    mine = embedding()
    store.put("sam-1", "aa", mine)
    key = the_key(redis_client)
    value = bytearray(redis_client.get(key))
    if damage == "flip":
        value[-5] ^= 1
    elif damage == "foreign":
        store.put("sam-1", "bb", embedding(3))
        value = redis_client.get("osprey:embedding:sam-1:bb")
    else:
        value = {"cut": value[:100], "empty": b"", "text": b"hello"}[damage]
    redis_client.set(key, bytes(value))
    with caplog.at_level(logging.WARNING):
        assert store.get("sam-1", "aa") is None
    assert "osprey:embedding:sam-1:aa" in caplog.text
    assert store.put("sam-1", "aa", mine) is mine
    assert equal(store.get("sam-1", "aa"), mine)


def test_values_live_for_their_ttl_after_the_last_use(store, redis_client):
    store.put("sam-1", "aa", embedding())
    key = the_key(redis_client)
    assert 0 < redis_client.ttl(key) <= 60
    redis_client.expire(key, 5)
    store.get("sam-1", "aa")
    assert redis_client.ttl(key) > 50


def test_all_together_stay_within_the_budget(redis_client):
    """The value used longest ago is removed first, and the sum of bytes stays within the limit."""
    size = len_of_one(redis_client)
    store = EmbeddingStore(redis_client, ttl_s=60, max_bytes=3 * size)
    for name in ("a", "b", "c"):
        store.put("sam-1", name, embedding())
    store.get("sam-1", "a")
    store.put("sam-1", "d", embedding())
    assert [store.get("sam-1", name) is not None for name in ("a", "b", "c", "d")] == [True, False, True, True]
    assert store.num_bytes() == 3 * size == sum(map(redis_client.strlen, redis_client.keys("osprey:embedding:*")))


def test_expired_values_free_their_bytes(redis_client):
    size = len_of_one(redis_client)
    store = EmbeddingStore(redis_client, ttl_s=1, max_bytes=10 * size)
    store.put("sam-1", "a", embedding())
    redis_client.zadd("osprey:embeddings:by-use", {"osprey:embedding:sam-1:a": 1.0})  # long ago
    store.put("sam-1", "b", embedding())
    assert store.num_bytes() == size


def test_one_larger_than_the_budget_is_not_stored(redis_client, caplog):
    store = EmbeddingStore(redis_client, ttl_s=60, max_bytes=100)
    mine = embedding()
    assert store.put("sam-1", "aa", mine) is mine
    assert redis_client.keys("*") == []
    assert "limit" in caplog.text


def test_a_full_redis_costs_no_click(store, redis_client, caplog):
    """If Redis refuses a value, the embedding is used all the same and a warning is logged."""
    redis_client.config_set("maxmemory", "1")
    try:
        mine = embedding()
        assert store.put("sam-1", "aa", mine) is mine
    finally:
        redis_client.config_set("maxmemory", "0")
    assert "is not shared" in caplog.text


def test_workers_that_store_at_once_agree(redis_server):
    """Eight workers encode the same image at the same time with different rounding: all use the first one's."""
    barrier, results = threading.Barrier(8), []

    def work(seed):
        with Redis.from_url(redis_server.url) as client:
            store = EmbeddingStore(client, ttl_s=60, max_bytes=1_000_000)
            barrier.wait()
            results.append(store.put("sam-1", "aa", embedding(seed)))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    assert all(equal(result, results[0]) for result in results)


def len_of_one(redis_client):
    store = EmbeddingStore(redis_client, ttl_s=60, max_bytes=1_000_000)
    store.put("sam-1", "x", embedding())
    size = store.num_bytes()
    redis_client.flushall()
    return size
