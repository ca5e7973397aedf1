"""A scene with its ground truth, made from a seed alone.

    scene = make_scene(7)
    scene.image, scene.objects[0].category, scene.objects[0].parts[0].mask

The same seed gives the same scene on every machine, because all randomness comes from one generator.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from demo.scenes.backgrounds import expose, paint_background
from demo.scenes.catalog import CATALOG
from demo.scenes.layout import place
from demo.scenes.painter import ObjectLayer, paint_object
from demo.scenes.palette import COLORS
from demo.scenes.textures import Pixels
from demo.scenes.truth import Relation, centroid, deepest_point, true_relations

Mask = NDArray[np.bool_]

_REFERENCE_HEIGHT = 384
_LEAVES_PER_OBJECT = 32
_VISIBLE_SHARE = 0.6
_LISTED_AREA_PX = 250  # of a 512x384 picture; smaller parts cannot be clicked or described
_LAYOUT_TRIES = 8
_MOST_OBJECTS = 5
_SIDES_PX = {3: (126.0, 178.0), 4: (114.0, 156.0), 5: (104.0, 138.0)}


class _Region:
    """The mask of an object or a part, as values of the scene's region map."""

    region_map: NDArray[np.uint8]
    leaf_values: tuple[int, ...]

    @cached_property
    def mask(self) -> Mask:
        """The visible pixels, (H, W)."""
        table = np.zeros(256, np.bool_)
        table[list(self.leaf_values)] = True
        return table[self.region_map]


@dataclass(frozen=True, eq=False)
class ScenePart(_Region):
    """A visible part of `scene.objects[object_idx]`; its mask includes its sub-parts."""

    name: str
    color: str
    material: str
    object_idx: int
    subparts: tuple[ScenePart, ...]
    leaf_values: tuple[int, ...]
    region_map: NDArray[np.uint8]

    @cached_property
    def inner_point_px(self) -> tuple[int, int]:
        """(x, y) of the deepest pixel outside the sub-parts, so that a click there means this part."""
        own = self.region_map == self.leaf_values[0]
        return deepest_point(own if own.any() else self.mask)


@dataclass(frozen=True, eq=False)
class SceneObject(_Region):
    """An object with its visible pixels. `relations[0]` is the one that its description states."""

    idx: int
    category: str
    color: str
    material: str
    parts: tuple[ScenePart, ...]
    relations: tuple[tuple[Relation, int], ...]
    center_px: tuple[float, float]
    leaf_values: tuple[int, ...]
    region_map: NDArray[np.uint8]

    @cached_property
    def inner_point_px(self) -> tuple[int, int]:
        """(x, y) of the deepest pixel of the object that lies in one of its parts."""
        listed = np.zeros_like(self.mask)
        for part in self.parts:
            listed |= part.mask
        return deepest_point(self.mask, listed if listed.any() else None)


@dataclass(frozen=True, eq=False)
class Scene:
    """A picture and its objects, in drawing order (a later one may cover an earlier one)."""

    seed: int
    image: Image.Image
    objects: tuple[SceneObject, ...]
    region_map: NDArray[np.uint8]

    @property
    def image_wh(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.image.size


def make_scene(
    seed: int, image_wh: tuple[int, int] = (512, 384), categories: Sequence[str] = tuple(sorted(CATALOG))
) -> Scene:
    """Draw the scene of `seed`, with three to five objects of at least five `categories`.

    Raises:
        ValueError: a negative seed, a side below 96 px (too small to draw parts), or fewer than five categories.
    """
    if seed < 0 or min(image_wh) < 96:
        raise ValueError(f"make_scene needs a seed >= 0 and sides >= 96 px, got seed {seed} and {image_wh}")
    if len(categories) < _MOST_OBJECTS:
        raise ValueError(f"make_scene needs at least {_MOST_OBJECTS} categories to draw from, got {list(categories)}")
    rng = np.random.default_rng(seed)
    # On a narrow picture the objects shrink with the width.
    px = min(image_wh[1], image_wh[0] * 0.75) / _REFERENCE_HEIGHT
    layers = _draw_objects(px, rng, categories)
    corners, region_map = _arrange(layers, image_wh, rng)
    image = _compose(layers, corners, image_wh, px, rng)
    return Scene(seed, image, _ground_truth(layers, region_map, px), region_map)


def _draw_objects(px: float, rng: np.random.Generator, pool: Sequence[str]) -> list[ObjectLayer]:
    """Draw three to five objects of different colours, sometimes two of one category."""
    count = int(rng.integers(3, 6))
    categories = [pool[idx] for idx in rng.permutation(len(pool))[:count].tolist()]
    colors = [list(COLORS)[idx] for idx in rng.permutation(len(COLORS))[:count].tolist()]
    if rng.random() < 0.15:
        categories[-1] = categories[0]  # two of a kind; they differ in colour
    sides_px = rng.uniform(*_SIDES_PX[count], count) * px
    return [
        paint_object(category, color, float(side), px, rng)
        for category, color, side in zip(categories, colors, sides_px, strict=True)
    ]


def _arrange(
    layers: Sequence[ObjectLayer], image_wh: tuple[int, int], rng: np.random.Generator
) -> tuple[list[tuple[int, int]], NDArray[np.uint8]]:
    """Find a layout that leaves enough of every object visible; return its corners and its region map."""
    sizes_wh = [(layer.leaf_map.shape[1], layer.leaf_map.shape[0]) for layer in layers]
    best_share, best = -1.0, ([(0, 0)] * len(layers), np.zeros(image_wh[::-1], np.uint8))
    for _ in range(_LAYOUT_TRIES):
        corners = place(sizes_wh, image_wh, rng)
        region_map = np.zeros(image_wh[::-1], np.uint8)
        for idx, (layer, (x, y)) in enumerate(zip(layers, corners, strict=True)):
            view = region_map[y : y + layer.leaf_map.shape[0], x : x + layer.leaf_map.shape[1]]
            seen = layer.leaf_map[: view.shape[0], : view.shape[1]]
            np.copyto(view, seen + np.uint8(idx * _LEAVES_PER_OBJECT), where=seen > 0)
        counts = np.bincount(region_map.ravel(), minlength=256).reshape(-1, _LEAVES_PER_OBJECT)
        share = min(counts[idx].sum() / np.count_nonzero(layer.leaf_map) for idx, layer in enumerate(layers) if idx)
        background = counts[0, 0]
        share = min(share, (counts[0].sum() - background) / np.count_nonzero(layers[0].leaf_map))
        if share > best_share:
            best_share, best = share, (corners, region_map)
        if best_share >= 0.78:
            break
    return best


def _compose(
    layers: Sequence[ObjectLayer],
    corners: Sequence[tuple[int, int]],
    image_wh: tuple[int, int],
    px: float,
    rng: np.random.Generator,
) -> Image.Image:
    """Paint background, shadows and objects, and apply light and camera effects."""
    canvas = paint_background(image_wh, px, rng)
    drop_px = rng.uniform(3.0, 8.0, 2) * px
    for layer, (x, y) in zip(layers, corners, strict=True):
        _cast_shadow(canvas, layer.alpha, (x + int(drop_px[0]), y + int(drop_px[1])), px)
        view = canvas[y : y + layer.alpha.shape[0], x : x + layer.alpha.shape[1]]
        height, width = view.shape[:2]
        view *= (1.0 - layer.alpha[:height, :width])[..., None]
        view += layer.premultiplied[:height, :width]
    return expose(canvas, rng)


def _cast_shadow(canvas: Pixels, alpha: Pixels, corner_xy: tuple[int, int], px: float) -> None:
    """Darken the canvas softly under an object's opacity moved to `corner_xy`."""
    blur_px = 4.0 * px
    pad = int(2 * blur_px) + 1
    blurred = Image.fromarray((np.pad(alpha, pad) * 255).astype(np.uint8)).filter(ImageFilter.BoxBlur(blur_px))
    x, y = corner_xy[0] - pad, corner_xy[1] - pad
    crop_x, crop_y = max(0, -x), max(0, -y)
    view = canvas[max(0, y) :, max(0, x) :][: blurred.height - crop_y, : blurred.width - crop_x]
    shadow = np.asarray(blurred, np.float32)[crop_y:, crop_x:][: view.shape[0], : view.shape[1]]
    view *= (1.0 - shadow * np.float32(0.33 / 255))[..., None]


def _ground_truth(layers: Sequence[ObjectLayer], region_map: NDArray[np.uint8], px: float) -> tuple[SceneObject, ...]:
    """List the objects with their visible parts, masks and relations."""
    image_wh = (region_map.shape[1], region_map.shape[0])
    visible = np.bincount(region_map.ravel(), minlength=256)
    visible[0] = 0
    least_px = _LISTED_AREA_PX * px * px
    values = [
        tuple(idx * _LEAVES_PER_OBJECT + 1 + leaf for leaf in range(len(layer.leaves)))
        for idx, layer in enumerate(layers)
    ]
    centers = [centroid(_Area(region_map, object_values).mask) for object_values in values]
    objects = []
    for idx, layer in enumerate(layers):
        full = np.bincount(layer.leaf_map.ravel(), minlength=_LEAVES_PER_OBJECT)

        def listed(
            leaf: int, layer: ObjectLayer = layer, idx: int = idx, full: NDArray[np.intp] = full
        ) -> list[ScenePart]:
            children = [number for number, other in enumerate(layer.leaves) if other.parent == leaf]
            own = (leaf, *children)
            seen = sum(int(visible[values[idx][number]]) for number in own)
            drawn = sum(int(full[number + 1]) for number in own)
            if seen < least_px or seen < _VISIBLE_SHARE * drawn:
                return []
            subparts = tuple(part for child in children for part in listed(child))
            plan = layer.leaves[leaf]
            leaf_values = tuple(values[idx][number] for number in own)
            return [ScenePart(plan.name, plan.color, plan.material, idx, subparts, leaf_values, region_map)]

        tops = [number for number, leaf in enumerate(layer.leaves) if leaf.parent is None]
        objects.append(
            SceneObject(
                idx=idx,
                category=layer.category,
                color=layer.color,
                material=layer.material,
                parts=tuple(part for top in tops for part in listed(top)),
                relations=true_relations(idx, centers, image_wh),
                center_px=centers[idx],
                leaf_values=values[idx],
                region_map=region_map,
            )
        )
    return tuple(objects)


@dataclass(frozen=True, eq=False)
class _Area(_Region):
    region_map: NDArray[np.uint8]
    leaf_values: tuple[int, ...]
