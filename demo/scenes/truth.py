"""Geometry of the ground truth: the deepest point of a mask, and the true relations of an object."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Relation = Literal["left", "right", "above", "below"]
RELATIONS: tuple[Relation, ...] = ("left", "right", "above", "below")

_GRID = 72
_CLEAR_SHARE = 0.06  # of the picture's side: a smaller offset is no relation


def deepest_point(mask: NDArray[np.bool_], allowed: NDArray[np.bool_] | None = None) -> tuple[int, int]:
    """Find the (x, y) of the pixel of `mask` that is farthest from everything outside it.

    Distances are exact on a grid of at most 72 cells per side, which is fine enough for a click.

    Args:
        mask: (H, W).
        allowed: where the point may lie (the whole mask by default); must share a pixel with `mask`.

    Raises:
        ValueError: the mask (or its allowed part) is empty.
    """
    target = mask if allowed is None else mask & allowed
    rows, columns = np.flatnonzero(target.any(axis=1)), np.flatnonzero(target.any(axis=0))
    if not len(rows):
        raise ValueError("the mask has no pixel, so no point lies inside it")
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    y0, x0, y1, x1 = int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1
    step = -(-max(y1 - y0, x1 - x0) // _GRID)
    # One empty cell on each side, because everything outside the picture counts as outside the mask.
    grid = np.pad(mask[y0:y1:step, x0:x1:step], 1)
    depth = _squared_distance_to_false(grid)[1:-1, 1:-1]
    depth = np.where(target[y0:y1:step, x0:x1:step], depth, -1.0)
    if depth.max() < 0:  # the target is thinner than the grid, so return any of its pixels
        y, x = (int(values[0]) for values in np.nonzero(target))
        return x, y
    row, column = np.unravel_index(int(depth.argmax()), depth.shape)
    return x0 + int(column) * step, y0 + int(row) * step


def _squared_distance_to_false(grid: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Compute the squared Euclidean distance in cells from each cell to the nearest False one."""
    height, width = grid.shape
    # Vertical distance first: to the nearest False cell above and below, far away where there is none.
    rows = np.arange(height)[:, None]
    above = np.maximum.accumulate(np.where(grid, -height * 2, rows), axis=0)
    below = np.minimum.accumulate(np.where(grid, height * 3, rows)[::-1], axis=0)[::-1]
    vertical = np.minimum(rows - above, below - rows).astype(np.float64) ** 2
    # Then the best over all columns of vertical plus horizontal distance.
    columns = np.arange(width)
    horizontal = (columns[:, None] - columns[None, :]) ** 2
    squared: NDArray[np.float64] = (vertical[:, None, :] + horizontal[None]).min(axis=2)
    return squared


def centroid(mask: NDArray[np.bool_]) -> tuple[float, float]:
    """Compute the mean (x, y) of the mask's pixels."""
    total = mask.sum()
    return (
        float(mask.sum(axis=0) @ np.arange(mask.shape[1]) / total),
        float(mask.sum(axis=1) @ np.arange(mask.shape[0]) / total),
    )


def true_relations(
    idx: int, centers_xy: Sequence[tuple[float, float]], image_wh: tuple[int, int]
) -> tuple[tuple[Relation, int], ...]:
    """List every true relation of object `idx` to another one, the clearest first.

    "left" holds when the centre is left of the other's by more than 6 % of the picture's width; the other relations
    are defined accordingly. The first entry is the canonical one: to the object with the nearest centre, along the
    axis on which the two centres differ most.
    """
    x, y = centers_xy[idx]
    found: list[tuple[float, float, Relation, int]] = []
    for other, (other_x, other_y) in enumerate(centers_xy):
        if other == idx:
            continue
        dx, dy = other_x - x, other_y - y
        distance = float(np.hypot(dx, dy))
        for offset, side, names in ((dx, image_wh[0], ("left", "right")), (dy, image_wh[1], ("above", "below"))):
            if abs(offset) > _CLEAR_SHARE * side:
                relation: Relation = names[0] if offset > 0 else names[1]  # type: ignore[assignment]
                found.append((distance, -abs(offset), relation, other))
    return tuple((relation, other) for _, _, relation, other in sorted(found, key=lambda item: item[:2]))


def place_in_picture(center_xy: tuple[float, float], image_wh: tuple[int, int]) -> str:
    """Return one of nine places: "top left", "top", ..., "center", ..., "bottom right"."""
    column = min(2, int(3 * center_xy[0] / image_wh[0]))
    row = min(2, int(3 * center_xy[1] / image_wh[1]))
    words = [("top", "", "bottom")[row], ("left", "", "right")[column]]
    return " ".join(word for word in words if word) or "center"
