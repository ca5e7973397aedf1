"""The byte-bounded LRU and the rows' cache."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from osprey_model.engine.kv_cache import ByteLru, PrefixKv, RowKv


@dataclass(frozen=True)
class Block:
    num_bytes: int


def test_the_least_recently_used_leaves_first() -> None:
    """`a` was read after `b`, so `b` goes when the limit is crossed."""
    cache: ByteLru[Block] = ByteLru(100)
    cache.put("a", Block(40))
    cache.put("b", Block(40))
    assert cache.get("a") == Block(40)
    cache.put("c", Block(40))
    assert cache.get("b") is None
    assert cache.get("a") == Block(40)
    assert cache.num_bytes == 80


def test_the_newest_stays_even_when_it_is_too_big() -> None:
    """An image larger than the limit can still be asked about."""
    cache: ByteLru[Block] = ByteLru(10)
    cache.put("a", Block(5))
    cache.put("b", Block(50))
    assert (len(cache), cache.get("b")) == (1, Block(50))


def test_a_shorter_prefix_is_a_view() -> None:
    """Cropping copies nothing."""
    kv = PrefixKv((torch.zeros(2, 8, 4),), (torch.zeros(2, 8, 4),))
    assert kv.first(5).length == 5
    assert kv.first(5).keys[0].data_ptr() == kv.keys[0].data_ptr()


def test_bias_hides_padding_and_the_future() -> None:
    """Two rows of lengths 3 and 1 in a block of 3 (padding sees itself); then a step that sees all but padding."""
    rows = RowKv(1, 1, 4, 6, torch.tensor([0, 2]), torch.float32)
    seen = torch.isfinite(rows.bias(3))[0, :, 0]
    assert seen[0].tolist() == [[True, False, False], [True, True, False], [True, True, True]]
    assert seen[1].tolist() == [[True, False, False], [False, True, False], [False, False, True]]
    rows.advance(3)
    assert torch.isfinite(rows.bias(1))[0, 1, 0].tolist() == [[False, False, True, True]]
    rows.keep(torch.tensor([1]))
    assert torch.isfinite(rows.bias(1)).shape == (1, 1, 1, 1, 4)
