"""A mask in any accepted form becomes the same tensor."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pycocotools import mask as coco

from osprey_model.inputs.masks import BadMask, EmptyMask, as_mask

MASK = np.array([[0, 1, 1], [0, 0, 1]], bool)


def read_only(mask: np.ndarray) -> np.ndarray:
    copy = mask.copy()
    copy.flags.writeable = False
    return copy


@pytest.mark.parametrize(
    "given",
    [
        MASK,
        MASK.astype(np.uint8),
        MASK.astype(float),
        MASK[::-1][::-1],
        read_only(MASK),
        torch.from_numpy(MASK),
        MASK.tolist(),
        coco.encode(np.asfortranarray(MASK.astype(np.uint8))),
        {"size": [2, 3], "counts": [2, 1, 1, 2]},  # column by column
    ],
)
def test_every_form_of_one_mask(given: object) -> None:
    """Bool, integers, floats, views, read-only arrays, tensors, lists and both COCO RLEs give the same mask."""
    assert as_mask(given).tolist() == MASK.tolist()


@pytest.mark.parametrize("given", [np.full((2, 2), 0.5), np.full((2, 2), 2), np.full((2, 2), -1), MASK[0]])
def test_what_is_no_mask(given: np.ndarray) -> None:
    """Soft, larger and negative values, and a single row, raise an error that describes what was given."""
    with pytest.raises(BadMask, match="expected a mask of"):
        as_mask(given)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("mask.png", "got str"),
        ([[0, 1], [1]], r"expected a mask of"),
        (np.full((2, 2), np.nan), "got values from nan"),
        ({"size": [2, 3]}, "expected a COCO RLE with size and counts"),
        ({"size": [2, 3], "counts": [2, 1]}, "its counts add up to 3, expected 6"),
        ({"size": [2, 3], "counts": []}, "cannot be decoded"),
        ({"size": [2], "counts": [2]}, "cannot be decoded"),
        ({"size": [2, 3], "counts": [7, -1]}, "expected counts of 0 or more, got -1"),
        ({"size": [-2, -3], "counts": [2, 4]}, "a height and a width of at least 1"),
        ({"size": [10**6, 10**6], "counts": [10**12 - 1, 1]}, "cannot be decoded"),
        ({"size": [2, 3], "counts": 5}, "cannot be decoded"),
    ],
)
def test_what_cannot_be_read(given: object, said: str) -> None:
    """Paths, ragged lists, NaN and damaged RLEs raise an error."""
    with pytest.raises(BadMask, match=said):
        as_mask(given)


@pytest.mark.parametrize("given", [np.zeros((2, 3), bool), {"size": [2, 3], "counts": [6]}])
def test_an_empty_mask(given: object) -> None:
    """A mask without a pixel raises `EmptyMask`."""
    with pytest.raises(EmptyMask, match="an empty one of 3x2"):
        as_mask(given)
