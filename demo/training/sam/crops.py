"""The input of one training step: a whole picture, or a crop around one object.

Four fifths of a scene are background. A crop of a quarter of the tokens costs a fifth of the time and shows one
object with all its parts, so most steps use crops. Whole pictures, as at inference, train distant tokens and the
padding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from demo.training.sam.data import LEVELS, NO_LEVEL, TrainingScene

CROP_TOKENS = 16
_INSIDE_SHARE = 0.97


@dataclass(frozen=True, slots=True)
class View:
    """A scene or a crop of one. `origin` is its first token (row, column) in SAM's input."""

    scene: TrainingScene
    origin: tuple[int, int] = (0, 0)
    is_crop: bool = False


def object_view(scene: TrainingScene, patch_size: int, window_size: int, rng: np.random.Generator) -> View:
    """Crop 16x16 tokens around a random object; regions that are cut are not supervised."""
    scale = scene.region_map.shape[1] // scene.image.shape[1]
    token_px = patch_size * scale
    chosen = int(rng.choice(np.unique(scene.levels[:, LEVELS - 1])[1:]))
    mask = scene.members[chosen][scene.region_map]
    grid_hw = np.array(scene.region_map.shape) // token_px
    origin = []
    for axis in (0, 1):
        lines = np.flatnonzero(mask.any(axis=1 - axis))
        first, last = lines[0] / token_px, (lines[-1] + 1) / token_px
        last_start = int(grid_hw[axis]) - CROP_TOKENS
        fitting = [start for start in range(last_start + 1) if start <= first and last <= start + CROP_TOKENS]
        # Prefer crops whose attention windows lie as at inference.
        aligned = [start for start in fitting if start % window_size == 0]
        middle = int(np.clip((first + last - CROP_TOKENS) / 2, 0, last_start))
        origin.append(int(rng.choice(aligned or fitting or [middle])))
    return View(_cut(scene, origin[0], origin[1], token_px, patch_size), (origin[0], origin[1]), is_crop=True)


def _cut(scene: TrainingScene, row: int, column: int, token_px: int, patch_size: int) -> TrainingScene:
    """Cut a scene to the crop at token (row, column) and renumber the regions that stay whole."""
    region_map = _piece(scene.region_map, row, column, token_px)
    before = np.bincount(scene.region_map.ravel(), minlength=256)
    after = np.bincount(region_map.ravel(), minlength=256)
    whole = scene.members @ after >= _INSIDE_SHARE * (scene.members @ before)
    points = scene.inner_points - np.array([column, row]) * token_px
    side = CROP_TOKENS * token_px
    whole &= ((points >= 0) & (points < side)).all(axis=1)
    # New number of each old region; the appended entry serves the index -1.
    numbers = np.append(np.where(whole, np.cumsum(whole) - 1, NO_LEVEL), NO_LEVEL)
    return TrainingScene(
        image=_piece(scene.image, row, column, patch_size),
        region_map=region_map,
        levels=numbers[scene.levels].astype(np.int16),
        members=scene.members[whole],
        inner_points=points[whole].astype(np.int16),
        part_class=scene.part_class,
    )


def _piece(pixels: NDArray[np.uint8], row: int, column: int, token_px: int) -> NDArray[np.uint8]:
    """Cut the crop's pixels out of an array of the whole picture."""
    side = CROP_TOKENS * token_px
    top, left = row * token_px, column * token_px
    return pixels[top : top + side, left : left + side]
