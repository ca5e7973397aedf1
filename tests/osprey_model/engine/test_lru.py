"""The byte-bounded LRU."""

from __future__ import annotations

from dataclasses import dataclass

from osprey_model.engine.lru import ByteLru, CacheStats


@dataclass(frozen=True)
class Block:
    num_bytes: int


def test_the_least_recently_used_leaves_first() -> None:
    """`a` was read after `b`, so `b` goes when the limit is crossed; every read and loss is counted."""
    cache: ByteLru[Block] = ByteLru(100)
    cache.put("a", Block(40))
    cache.put("b", Block(40))
    assert cache.get("a") == Block(40)
    cache.put("c", Block(40))
    assert cache.get("b") is None
    assert cache.get("a") == Block(40)
    assert cache.stats() == CacheStats(hits=2, misses=1, evictions=1, entries=2, num_bytes=80, limit_bytes=100)


def test_the_newest_stays_even_when_it_is_too_big() -> None:
    """An image larger than the limit can still be asked about."""
    cache: ByteLru[Block] = ByteLru(10)
    cache.put("a", Block(5))
    cache.put("b", Block(50))
    assert (len(cache), cache.get("b")) == (1, Block(50))
