"""`ByteLru` keeps its limit in bytes and counts what it does."""

from __future__ import annotations

from dataclasses import dataclass

from osprey_model.byte_lru import ByteLru, CacheStats


@dataclass(frozen=True)
class Block:
    num_bytes: int


def test_the_least_recently_used_leaves_first() -> None:
    """`a` was read after `b`, so `b` is removed when the limit is exceeded; hits, misses and evictions are counted."""
    cache: ByteLru[Block] = ByteLru(100)
    cache.put("a", Block(40))
    cache.put("b", Block(40))
    assert cache.get("a") == Block(40)
    cache.put("c", Block(40))
    assert cache.get("b") is None
    assert cache.get("a") == Block(40)
    assert cache.stats() == CacheStats(hits=2, misses=1, evictions=1, entries=2, num_bytes=80, limit_bytes=100)


def test_a_replaced_entry_no_longer_counts() -> None:
    """The bytes of an entry are subtracted when another entry replaces it under the same key."""
    cache: ByteLru[Block] = ByteLru(100)
    cache.put("a", Block(90))
    cache.put("a", Block(10))
    cache.put("b", Block(80))
    assert cache.stats() == CacheStats(hits=0, misses=0, evictions=0, entries=2, num_bytes=90, limit_bytes=100)


def test_the_newest_stays_even_when_it_is_too_big() -> None:
    """An entry larger than the limit stays in the cache until the next one is added."""
    cache: ByteLru[Block] = ByteLru(10)
    cache.put("a", Block(5))
    cache.put("b", Block(50))
    assert (len(cache), cache.get("b")) == (1, Block(50))
