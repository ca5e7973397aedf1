"""Rings in pixels -> bool mask, by the nonzero winding rule, as a canvas fills."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from label_config.geometry.coordinates import FloatArray

BoolMask = NDArray[np.bool_]


def fill_rings(mask: BoolMask, rings_px: Sequence[FloatArray]) -> None:
    """Set the pixels of a C-contiguous mask, shape (H, W), whose centre the rings, shapes (N, 2), together wind around.

    Every edge adds its direction (+1 or -1) at the first pixel centre to the right of its crossing with a row. The
    running sum in reading order is the winding number. The two directions along a slit cancel out.
    """
    if not rings_px:
        return
    # All edges of all rings, from `start` to `end`.
    height, width = mask.shape
    start = np.concatenate(rings_px)
    last = np.cumsum([len(ring) for ring in rings_px]) - 1
    following = np.arange(1, len(start) + 1)
    following[last] = np.concatenate([[0], last[:-1] + 1])  # the last corner's edge ends at the ring's first
    end = start[following]
    downward = start[:, 1] < end[:, 1]
    # Both directions along a slit must compute the same crossing, so every edge starts at its upper end.
    upper, lower = np.where(downward[:, None], start, end), np.where(downward[:, None], end, start)
    # The rows whose centres each edge crosses; one entry per crossing from here on.
    first_row = np.clip(np.ceil(upper[:, 1] - 0.5), 0, height).astype(np.int64)
    end_row = np.clip(np.ceil(lower[:, 1] - 0.5), 0, height).astype(np.int64)
    num_rows = np.maximum(end_row - first_row, 0)
    edge = np.repeat(np.arange(len(start)), num_rows)
    if not edge.size:
        return
    row = np.arange(edge.size) - np.repeat(np.cumsum(num_rows) - num_rows, num_rows) + first_row[edge]
    # The first pixel centre to the right of each crossing.
    slope = (lower[edge, 0] - upper[edge, 0]) / (lower[edge, 1] - upper[edge, 1])
    crossing_x = upper[edge, 0] + (row + 0.5 - upper[edge, 1]) * slope
    column = np.clip(np.ceil(crossing_x - 0.5), 0, width).astype(np.int64)
    # The crossings of a row add up to zero, so one after its last pixel may count at the first pixel of the next row.
    position = row * width + column
    order = np.argsort(position, kind="stable")  # fast, because each edge's crossings are already in order
    # Sum up in reading order and set the pixels between two crossings where the sum is not zero.
    position, end_px = position[order], (int(row.max()) + 1) * width
    winding = np.cumsum(np.where(downward[edge], 1, -1)[order])
    mask.reshape(-1)[position[0] : end_px] |= np.repeat(winding != 0, np.diff(position, append=end_px))
