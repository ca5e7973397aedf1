"""Prompts with the regions that they mean, drawn from a scene's ground truth: clicks, boxes, corrections.

Everything here is numpy and in SAM's input frame (pixels of the resized picture): a full-size pixel times
`input_scale`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from demo.training.sam.data import NO_LEVEL, TrainingScene

BACKGROUND = -2
_JITTER_PX = 2.0
_BOX_JITTER = 0.06  # of the box's side
_INNER_SHARE = 0.35
_DEEP_TRIES = 3


@dataclass(frozen=True, slots=True)
class Clicks:
    """Single positive clicks: `points` (N, 2) in input pixels, `regions` (N, 3) that each may mean.

    A region of -1 is not supervised; -2 is the background.
    """

    points: NDArray[np.float32]
    regions: NDArray[np.int16]


def draw_clicks(
    scene: TrainingScene, count: int, background: int, input_scale: float, rng: np.random.Generator
) -> Clicks:
    """Draw `count` clicks, the last `background` of them on the background.

    Regions of all levels are clicked equally often, at their inner point or anywhere inside.
    """
    # Sorting the pixels by leaf makes a random pixel of a leaf one look-up.
    flat = scene.region_map.ravel()
    order = np.argsort(flat, kind="stable")
    ends = np.cumsum(np.bincount(flat, minlength=256))
    width = scene.region_map.shape[1]

    def pixel_of(leaf: int) -> tuple[int, int]:
        start = ends[leaf - 1] if leaf else 0
        pixel = int(order[rng.integers(start, ends[leaf])])
        return pixel % width, pixel // width

    sizes = np.diff(ends, prepend=0)
    points, regions = [], []
    for _ in range(count - background):
        region = int(rng.integers(len(scene.members)))
        x, y = scene.inner_points[region].tolist()
        if rng.random() > _INNER_SHARE:
            leaves = np.flatnonzero(scene.members[region] & (sizes > 0))
            # Take the pixel deepest inside of a few random ones, because people do not aim at borders.
            spots = [
                pixel_of(int(rng.choice(leaves, p=sizes[leaves] / sizes[leaves].sum()))) for _ in range(_DEEP_TRIES)
            ]
            x, y = max(spots, key=lambda spot: _same_around(scene.region_map, spot)) if rng.random() < 0.6 else spots[0]
        else:
            near_x, near_y = (int(v) for v in np.round(np.add((x, y), rng.normal(0, _JITTER_PX, 2))))
            if 0 <= near_x < width and 0 <= near_y < len(scene.region_map):
                same = scene.region_map[near_y, near_x] == scene.region_map[y, x]
                x, y = (near_x, near_y) if same else (x, y)
        points.append((x, y))
        regions.append(scene.levels[scene.region_map[y, x]])
    for _ in range(background):
        points.append(pixel_of(0) if sizes[0] else (0, 0))
        regions.append(np.full(3, BACKGROUND if sizes[0] else NO_LEVEL, np.int16))
    return Clicks(np.array(points, np.float32) * np.float32(input_scale), np.array(regions, np.int16))


def draw_boxes(
    scene: TrainingScene, count: int, input_scale: float, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.int16]]:
    """Draw `count` imprecise boxes (N, 4) in input pixels, and the region that each means (N,)."""
    height, width = scene.region_map.shape
    boxes, regions = [], []
    for _ in range(count):
        region = int(rng.integers(len(scene.members)))
        mask = scene.members[region][scene.region_map]
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        box = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float64)
        sides = np.tile(box[2:] - box[:2], 2)
        box = box + rng.normal(0, 1, 4) * np.minimum(sides * _BOX_JITTER, 10.0)
        boxes.append(np.clip(box, 0, (width, height, width, height)))
        regions.append(region)
    return np.array(boxes, np.float32) * np.float32(input_scale), np.array(regions, np.int16)


def draw_correction(
    predicted: NDArray[np.bool_], truth: NDArray[np.bool_], cell_input_px: float, rng: np.random.Generator
) -> tuple[tuple[float, float], int]:
    """Draw a further click where `predicted` and `truth` (h, w, cells) disagree.

    Where they agree everywhere, the click includes any cell of the truth.

    Returns:
        The point in input pixels and its label: 1 include, 0 exclude, -1 no point (SAM's padding label).
    """
    wrong = predicted != truth
    # People do not click a border that is off by one cell, so prefer cells whose neighbours are wrong too.
    padded = np.pad(wrong, 1)
    thick = wrong & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    places = thick if thick.any() else (wrong & ~truth if (wrong & ~truth).sum() > wrong.sum() / 2 else truth)
    cells = np.flatnonzero(places)
    if not len(cells):
        return (0.0, 0.0), -1
    cell = int(cells[rng.integers(len(cells))])
    row, column = divmod(cell, truth.shape[1])
    return ((column + 0.5) * cell_input_px, (row + 0.5) * cell_input_px), int(truth[row, column])


def _same_around(region_map: NDArray[np.uint8], spot: tuple[int, int]) -> int:
    """Count the pixels near a spot that show the same leaf."""
    x, y = spot
    window = region_map[max(0, y - 4) : y + 5, max(0, x - 4) : x + 5]
    return int((window == region_map[y, x]).sum())
