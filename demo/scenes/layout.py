"""Positions of the objects: little overlap, and neighbours that are clearly left, right, above or below."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_LAYOUTS = 10
_TRIES_PER_OBJECT = 60
_OVERLAP_SHARE = 0.16  # of the smaller of two boxes


def place(
    sizes_wh: Sequence[tuple[int, int]], image_wh: tuple[int, int], rng: np.random.Generator
) -> list[tuple[int, int]]:
    """Choose top left corners (x, y) for boxes of `sizes_wh`, all inside the image.

    Of several random layouts, take the one with the clearest neighbourhoods.
    """
    best_score, best = -np.inf, [(0, 0)] * len(sizes_wh)
    for _ in range(_LAYOUTS):
        corners, overlap = _scatter(sizes_wh, image_wh, rng)
        centers = np.array([(x + w / 2, y + h / 2) for (x, y), (w, h) in zip(corners, sizes_wh, strict=True)])
        score = _clarity(centers) - 4.0 * max(0.0, overlap - _OVERLAP_SHARE)
        if score > best_score:
            best_score, best = score, corners
    return best


def _scatter(
    sizes_wh: Sequence[tuple[int, int]], image_wh: tuple[int, int], rng: np.random.Generator
) -> tuple[list[tuple[int, int]], float]:
    """Draw one layout, and measure the largest share of a box that another one covers."""
    boxes: list[tuple[int, int, int, int]] = []
    worst = 0.0
    for width, height in sizes_wh:
        spread = rng.random((_TRIES_PER_OBJECT, 2))
        choice, least = (0, 0), np.inf
        for u, v in spread.tolist():
            x, y = int(u * max(0, image_wh[0] - width)), int(v * max(0, image_wh[1] - height))
            overlap = max((_overlap((x, y, width, height), other) for other in boxes), default=0.0)
            if overlap < least:
                choice, least = (x, y), overlap
            if overlap <= _OVERLAP_SHARE * 0.6:
                break
        boxes.append((*choice, width, height))
        worst = max(worst, least)
    return [(x, y) for x, y, _, _ in boxes], worst


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> float:
    """Compute the shared area of two boxes (x, y, w, h) as a share of the smaller one."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    return max(0, width) * max(0, height) / min(a[2] * a[3], b[2] * b[3])


def _clarity(centers_xy: NDArray[np.float64]) -> float:
    """Measure how clear the neighbourhoods are, from 0 (bad) to 1 (good).

    The result is the smallest margin, over all objects, of two kinds: by how much one other object is the nearest,
    and by how much one axis dominates the offset to it.
    """
    offsets = centers_xy[None] - centers_xy[:, None]
    distances = np.hypot(offsets[..., 0], offsets[..., 1])
    np.fill_diagonal(distances, np.inf)
    margins: list[float] = []
    for idx, row in enumerate(distances):
        order = np.argsort(row, kind="stable")
        short, long = np.sort(np.abs(offsets[idx, order[0]]))
        margins.append(float(1.0 - short / max(long, 1e-9)))
        if len(row) > 2:
            # A third more distance counts as perfectly clear.
            margins.append(float(min(1.0, 3.0 * (row[order[1]] / max(row[order[0]], 1e-9) - 1.0))))
    return min(margins)
