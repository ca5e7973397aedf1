"""Claims about the nesting of regions."""

from __future__ import annotations

import numpy as np

from job_queue.mask_codec import encode_mask
from worker.prelabel.regions import FoundRegion, nested, root_of


def box(x0: int, y0: int, x1: int, y1: int) -> FoundRegion:
    mask = np.zeros((60, 80), dtype=np.bool_)
    mask[y0:y1, x0:x1] = True
    return FoundRegion(encode_mask(mask), int(mask.sum()), 0.9)


def test_the_smallest_region_around_is_the_parent():
    """A wheel in a door in a car has the door as parent and the car as its object; a neighbour has no parent."""
    regions = nested([box(0, 0, 40, 40), box(2, 2, 20, 20), box(4, 4, 8, 8), box(50, 0, 70, 40)])
    assert [region.parent for region in regions] == [None, 0, 1, None]
    assert [root_of(regions, idx) for idx in range(4)] == [0, 0, 0, 3]


def test_near_duplicates_and_overlaps_are_no_parts():
    """A mask of nearly the same size, or half outside, is not a part."""
    regions = nested([box(0, 0, 40, 40), box(0, 0, 40, 39), box(30, 0, 60, 20)])
    assert [region.parent for region in regions] == [None, None, None]


def test_no_region_is_no_error():
    assert nested([]) == []
