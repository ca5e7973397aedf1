"""Keys and values of prefixes, and the slots of rows."""

from __future__ import annotations

import torch

from osprey_model.engine.decoding.kv_cache import KvShape, PrefixKv, RowKv

SHAPE = KvShape(num_layers=1, num_kv_heads=2, head_dim=4, dtype=torch.float32, device=torch.device("cpu"))


def test_a_shorter_prefix_is_a_view() -> None:
    """The first positions of a prefix are views; nothing is copied."""
    kv = PrefixKv((torch.zeros(2, 8, 4),), (torch.zeros(2, 8, 4),))
    assert kv.first(5).length == 5
    assert kv.first(5).keys[0].data_ptr() == kv.keys[0].data_ptr()


def test_slots_grow_and_keep_what_is_used() -> None:
    """With more or longer slots, the first `num_used` keep their content and the rest is zero."""
    rows = RowKv(SHAPE, max_positions=1000)
    rows.reserve(2, 8, num_used=0)
    rows.keys[:, 0] = 1.0
    rows.keys[:, 1] = 2.0
    rows.reserve(4, 16, num_used=1)
    assert rows.keys.shape == (1, 4, 2, 16, 4)
    assert bool((rows.keys[:, 0, :, :8] == 1.0).all())
    assert not rows.keys[:, 1:].any()
    kept = rows.keys.data_ptr()
    rows.reserve(3, 16, num_used=1)
    assert rows.keys.data_ptr() == kept


def test_slots_stay_within_their_limit() -> None:
    """When long rows follow many short ones, unused slots are removed, so that the limit is kept."""
    rows = RowKv(SHAPE, max_positions=64)
    rows.reserve(8, 8, num_used=0)
    rows.keys[:, 0] = 1.0
    rows.reserve(2, 32, num_used=1)
    assert rows.keys.shape == (1, 2, 2, 32, 4)
    assert bool((rows.keys[:, 0, :, :8] == 1.0).all())
    assert rows.num_bytes == 2 * 4 * 2 * 2 * 32 * 4


def test_a_slot_is_copied() -> None:
    """`move` copies a row's positions into another slot."""
    rows = RowKv(SHAPE, max_positions=64)
    rows.reserve(2, 8, num_used=0)
    rows.keys[:, 1, :, :5] = 3.0
    rows.move(1, 0, 5)
    assert torch.equal(rows.keys[:, 0], rows.keys[:, 1])
