"""Rings in pixels -> bool mask, nonzero winding as a canvas fills; used by `polygon` in both directions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from label_config.geometry.coordinates import FloatArray

BoolMask = NDArray[np.bool_]


def fill_rings(mask: BoolMask, rings_px: Sequence[FloatArray]) -> None:
    """Set the pixels of a C-contiguous mask, shape (H, W), whose centre the rings, shapes (N, 2), together wind around.

    Every edge adds its direction at the first pixel centre to the right of where it crosses a row; the running
    sum in reading order is the winding number. The two walks along a slit add and take away the same.
    """
    if not rings_px:
        return
    height, width = mask.shape
    start = np.concatenate(rings_px)
    last = np.cumsum([len(ring) for ring in rings_px]) - 1
    following = np.arange(1, len(start) + 1)
    following[last] = np.concatenate([[0], last[:-1] + 1])  # the last corner's edge ends at the ring's first
    end = start[following]
    downward = start[:, 1] < end[:, 1]
    # Both walks along a slit must compute the same crossing, so every edge is taken from its upper end.
    upper, lower = np.where(downward[:, None], start, end), np.where(downward[:, None], end, start)
    first_row = np.clip(np.ceil(upper[:, 1] - 0.5), 0, height).astype(np.int64)
    end_row = np.clip(np.ceil(lower[:, 1] - 0.5), 0, height).astype(np.int64)
    num_rows = np.maximum(end_row - first_row, 0)
    edge = np.repeat(np.arange(len(start)), num_rows)
    if not edge.size:
        return
    row = np.arange(edge.size) - np.repeat(np.cumsum(num_rows) - num_rows, num_rows) + first_row[edge]
    slope = (lower[edge, 0] - upper[edge, 0]) / (lower[edge, 1] - upper[edge, 1])
    crossing_x = upper[edge, 0] + (row + 0.5 - upper[edge, 1]) * slope
    column = np.clip(np.ceil(crossing_x - 0.5), 0, width).astype(np.int64)
    # The crossings of a row add up to zero, so one behind its last pixel may as well be the next row's first.
    position = row * width + column
    order = np.argsort(position, kind="stable")  # an edge's crossings come in order: runs that need only be merged
    position, end_px = position[order], (int(row.max()) + 1) * width
    winding = np.cumsum(np.where(downward[edge], 1, -1)[order])
    mask.reshape(-1)[position[0] : end_px] |= np.repeat(winding != 0, np.diff(position, append=end_px))
