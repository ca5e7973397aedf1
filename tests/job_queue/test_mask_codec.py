"""Claims about the mask codec: it changes no mask, and agrees with pycocotools."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as coco_mask

from job_queue.mask_codec import decode_mask, encode_mask, mask_bounds_xyxy


@given(arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=40), elements=st.booleans()))
def test_any_mask_survives_json(mask):
    """Property: decoding an encoded mask gives the same mask, for every size and content."""
    decoded = decode_mask(json.loads(json.dumps(encode_mask(mask))))
    assert decoded.dtype == np.bool_
    assert np.array_equal(decoded, mask)


@given(arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=40), elements=st.booleans()))
def test_both_directions_equal_pycocotools(mask):
    """Property: encoding gives the string of pycocotools, and decoding its string gives the same mask."""
    theirs = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    mine = encode_mask(mask)
    assert mine["counts"] == theirs["counts"].decode()
    assert np.array_equal(decode_mask(mine), coco_mask.decode(theirs).astype(bool))


def test_a_mask_of_noise_equals_pycocotools():
    """A mask with tens of thousands of runs, which is encoded by other code, gives the same string."""
    mask = np.random.default_rng(0).random((400, 500)) < 0.5
    theirs = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    assert encode_mask(mask)["counts"] == theirs["counts"].decode()
    assert np.array_equal(decode_mask(encode_mask(mask)), mask)


@given(st.lists(st.integers(0, 300), min_size=1, max_size=30))
def test_runs_of_no_pixel_are_read(counts):
    """Property: counts with runs of length zero, which no encoder writes, are decoded as pycocotools decodes them."""
    height, width = 1, max(1, sum(counts))
    counts = counts if sum(counts) else [1]
    rle = coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    expected = coco_mask.decode(rle).astype(bool)
    assert np.array_equal(decode_mask({"size": [height, width], "counts": rle["counts"].decode()}), expected)


@pytest.mark.parametrize("counts", ["", "5", "~~~", "o", " 1", "0000001", "é"])
def test_counts_of_another_size_are_named(counts):
    """Damaged counts are an error, never a mask."""
    with pytest.raises(ValueError, match=r"4x3|ascii"):
        decode_mask({"size": [3, 4], "counts": counts})


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
