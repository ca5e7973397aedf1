"""Masks as callers have them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pycocotools import mask as coco

from osprey_model.engine.masks import BadMask, as_mask

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
    """Bool, integers, floats, views, read-only arrays, tensors, lists, both COCO RLEs."""
    assert as_mask(given).tolist() == MASK.tolist()


@pytest.mark.parametrize("given", [np.full((2, 2), 0.5), np.full((2, 2), 2), np.full((2, 2), -1), MASK[0]])
def test_what_is_no_mask(given: np.ndarray) -> None:
    """Soft values, larger ones, negative ones, one row: the message says what came."""
    with pytest.raises(BadMask, match="expected a mask of"):
        as_mask(given)
