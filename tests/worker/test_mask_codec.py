"""Masks cross the queue unchanged."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from worker.mask_codec import decode_mask, encode_mask, mask_bounds_xyxy


@given(arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=40), elements=st.booleans()))
def test_any_mask_survives_json(mask):
    """Property: decode(encode(mask)) is the mask, for every size and content."""
    decoded = decode_mask(json.loads(json.dumps(encode_mask(mask))))
    assert decoded.dtype == np.bool_
    assert np.array_equal(decoded, mask)


@pytest.mark.parametrize("fill", [False, True])
def test_empty_and_full_masks(fill):
    mask = np.full((30, 70), fill)
    assert np.array_equal(decode_mask(encode_mask(mask)), mask)


@pytest.mark.parametrize("bad", [np.zeros((2, 2), np.uint8), np.zeros((2, 2, 1), np.bool_)])
def test_other_arrays_are_refused_with_what_came(bad):
    with pytest.raises(ValueError, match=r"expected a bool mask of shape \(H, W\), got"):
        encode_mask(bad)


def test_bounds_are_the_box_around_the_mask() -> None:
    mask = np.zeros((20, 30), dtype=np.bool_)
    assert mask_bounds_xyxy(encode_mask(mask)) == (0, 0, 0, 0)
    mask[3:7, 10:25] = True
    assert mask_bounds_xyxy(encode_mask(mask)) == (10, 3, 25, 7)
