"""The objects that the browser tests click: objects and parts of drawn scenes with known masks."""

from __future__ import annotations

import numpy as np

from demo.scenes import DEMO_SEEDS, Scene, SceneObject, ScenePart, make_scene

CLEAR_OBJECTS = (  # (scene, category): large, unoccluded, with parts of a good size
    (DEMO_SEEDS[2], "clock"),
    (DEMO_SEEDS[5], "fish"),
    (DEMO_SEEDS[11], "house"),
    (DEMO_SEEDS[0], "boat"),
)


def scene_with(number: int) -> tuple[Scene, SceneObject]:
    """Return a scene and the object in it that tests click."""
    seed, category = CLEAR_OBJECTS[number]
    scene = make_scene(seed)
    return scene, next(each for each in scene.objects if each.category == category)


def largest_part(region: SceneObject) -> ScenePart:
    """Return the largest part of an object."""
    return max(region.parts, key=lambda part: int(part.mask.sum()))


def pct(scene: Scene, point_px: tuple[float, float]) -> tuple[float, float]:
    """Return a pixel's centre in percent of the image."""
    width, height = scene.image.size
    return (point_px[0] + 0.5) / width * 100, (point_px[1] + 0.5) / height * 100


def box_pct(scene: Scene, mask: np.ndarray, margin_px: int = 4) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return two corners of a box around a mask, in percent of the image, with a small margin."""
    rows, columns = np.nonzero(mask)
    left_top = (max(0, columns.min() - margin_px), max(0, rows.min() - margin_px))
    width, height = scene.image.size
    right_bottom = (min(width - 1, columns.max() + margin_px), min(height - 1, rows.max() + margin_px))
    return pct(scene, left_top), pct(scene, right_bottom)


def iou(one: np.ndarray, other: np.ndarray) -> float:
    """Return the intersection over union of two masks of the same size."""
    assert one.shape == other.shape, f"masks of {one.shape} and {other.shape}"
    return float((one & other).sum() / max(1, (one | other).sum()))
