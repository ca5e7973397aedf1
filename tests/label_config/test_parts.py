"""When a region is a part of another."""

from __future__ import annotations

import numpy as np

from label_config.parts import PART_INSIDE, PART_OF_AREA, clearly_smaller, mostly_inside


def test_a_part_is_clearly_smaller() -> None:
    assert clearly_smaller(84, 100)
    assert not clearly_smaller(int(100 * PART_OF_AREA), 100)


def test_a_part_lies_mostly_inside() -> None:
    assert mostly_inside(int(10 * PART_INSIDE), 10)
    assert not mostly_inside(7, 10)


def test_arrays_are_compared_element_by_element() -> None:
    areas = np.array([100, 50])
    assert clearly_smaller(areas[:, None], areas[None, :]).tolist() == [[False, False], [True, False]]
    assert mostly_inside(np.array([80, 39]), areas).tolist() == [True, False]
