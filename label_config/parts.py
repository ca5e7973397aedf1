"""When a region is a part of another: it is clearly smaller and lies mostly inside. Pure.

Both functions take pixel counts or arrays of them, and give a bool or an array of bools.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

PART_OF_AREA = 0.85
PART_INSIDE = 0.8

Pixels = int | NDArray[np.number[Any]]


def clearly_smaller(area_px: Pixels, whole_area_px: Pixels) -> Any:
    """Whether an area is small enough for a part of a region of `whole_area_px`."""
    return area_px < PART_OF_AREA * whole_area_px


def mostly_inside(inside_px: Pixels, area_px: Pixels) -> Any:
    """Whether `inside_px` of a region's `area_px` pixels are enough to say that it lies in another region."""
    return inside_px >= PART_INSIDE * area_px
