"""Paint one object: its polygons are rasterised at twice the size, textured, shaded and stacked.

`paint_object` does not depend on other objects; `demo.scenes.scene` composes the layers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from demo.scenes.catalog import CATALOG, Paint, PartPlan
from demo.scenes.newcomers import NEWCOMERS
from demo.scenes.palette import COLORS
from demo.scenes.shapes import Shape
from demo.scenes.textures import MATERIALS, Pixels, paint

_SUPERSAMPLE = 2
_MARGIN_PX = 2
_PLANS = CATALOG | NEWCOMERS


@dataclass(frozen=True)
class Leaf:
    """One painted area: a part without its sub-parts, or a sub-part. `parent` is its part's leaf number."""

    name: str
    color: str
    material: str
    parent: int | None


@dataclass(frozen=True)
class ObjectLayer:
    """An object on a transparent ground.

    `premultiplied` (h, w, 3) is colour times opacity, `alpha` (h, w) is opacity from 0 to 1. `leaf_map` (h, w) holds
    1 + the index into `leaves` of the area that is visible at each pixel, 0 for none.
    """

    category: str
    color: str
    material: str
    leaves: tuple[Leaf, ...]
    premultiplied: Pixels
    alpha: Pixels
    leaf_map: NDArray[np.uint8]


def paint_object(category: str, color: str, area_side_px: float, px: float, rng: np.random.Generator) -> ObjectLayer:
    """Draw one object of random material, pose and second colours.

    Args:
        area_side_px: square root of the area of the object's bounding box.
        px: size of one pixel of a 512x384 picture in this picture.
    """
    plans = _PLANS[category](rng)
    material = sorted(MATERIALS)[int(rng.integers(len(MATERIALS)))]
    scheme = _color_scheme(color, rng)
    posed, size_hw = _pose(plans, area_side_px, rng)
    texture = paint(material, COLORS[color], size_hw, px, rng)
    shade = _shade(size_hw, rng)

    premultiplied = np.zeros((*size_hw, 3), np.float32)
    alpha = np.zeros(size_hw, np.float32)
    leaf_map = np.zeros(size_hw, np.uint8)
    leaves: list[Leaf] = []

    def add(plan: PartPlan, parent: int | None) -> None:
        is_main = plan.paint == "main"
        leaf_color = _resolve(plan.paint, scheme, None if parent is None else leaves[parent].color)
        leaves.append(Leaf(plan.name, leaf_color, material if is_main else "plastic", parent))
        leaf_idx = len(leaves)
        y0, x0, cover = _rasterise(plan.shape, size_hw)
        area = (slice(y0, y0 + cover.shape[0]), slice(x0, x0 + cover.shape[1]))
        tone = COLORS[leaf_color]
        pixels = texture[area] if is_main else np.broadcast_to(np.asarray(tone.base, np.float32), (*cover.shape, 3))
        # Darker towards the rim: this suggests volume and separates two parts of one colour.
        rim = (1.0 - _inner(cover, px)) * (0.5 if leaf_color != "black" else -1.1)
        lit = pixels * (shade[area] * (1.0 - rim))[..., None]
        keep = (1.0 - cover)[..., None]
        premultiplied[area] = lit * cover[..., None] + premultiplied[area] * keep
        alpha[area] = cover + alpha[area] * keep[..., 0]
        leaf_map[area][cover >= 0.5] = leaf_idx
        for subplan in plan.subparts:
            add(subplan, leaf_idx - 1)

    for plan in posed:
        add(plan, None)
    return ObjectLayer(category, color, material, tuple(leaves), premultiplied, alpha, leaf_map)


def _color_scheme(color: str, rng: np.random.Generator) -> dict[str, str]:
    """Choose the object's second and third colour."""
    others = [name for name in COLORS if name != color]
    second, third = rng.permutation(len(others))[:2]
    return {"main": color, "second": others[int(second)], "third": others[int(third)]}


def _resolve(wanted: Paint, scheme: dict[str, str], parent_color: str | None) -> str:
    """Choose the colour name of a part, different from its neighbours' where the plan leaves a choice.

    The neighbours of a part are the parts with the object's three colours; that of a sub-part is its part.
    """
    if isinstance(wanted, str):
        return scheme[wanted]
    taken = set(scheme.values()) if parent_color is None else {parent_color}
    # If neighbours have all of the choices, differ at least from the object's main colour.
    return next((name for name in wanted if name not in taken), next(n for n in wanted if n != scheme["main"]))


def _pose(
    plans: tuple[PartPlan, ...], area_side_px: float, rng: np.random.Generator
) -> tuple[list[PartPlan], tuple[int, int]]:
    """Mirror, turn and scale the plans into pixels of a box that just holds them."""
    mirror = -1.0 if rng.random() < 0.5 else 1.0
    turn = np.radians(float(rng.uniform(-9.0, 9.0)))
    stretch = float(rng.uniform(0.94, 1.07))
    cos, sin = float(np.cos(turn)), float(np.sin(turn))
    matrix = np.diag([mirror * stretch, 1.0 / stretch]) @ np.array([[cos, sin], [-sin, cos]])
    corners = np.concatenate([polygon @ matrix for plan in plans for polygon in plan.shape.polygons])
    low, extent = corners.min(axis=0), np.ptp(corners, axis=0)
    scale = area_side_px / float(np.sqrt(extent[0] * extent[1]))
    offset = _MARGIN_PX - low * scale
    size_hw = tuple(int(np.ceil(side * scale)) + 2 * _MARGIN_PX for side in extent[::-1])

    def place(plan: PartPlan) -> PartPlan:
        shape = plan.shape.mapped(matrix * scale, offset)
        return PartPlan(plan.name, shape, plan.paint, tuple(place(subplan) for subplan in plan.subparts))

    return [place(plan) for plan in plans], (size_hw[0], size_hw[1])


def _rasterise(shape: Shape, size_hw: tuple[int, int]) -> tuple[int, int, Pixels]:
    """Draw a shape inside a picture of `size_hw`: (top, left, coverage 0 to 1)."""
    corners = np.concatenate(shape.polygons)
    left, top = (max(0, int(np.floor(value)) - 1) for value in corners.min(axis=0))
    right, bottom = (
        min(limit, int(np.ceil(value)) + 1) for value, limit in zip(corners.max(axis=0), size_hw[::-1], strict=True)
    )
    width, height = max(1, right - left), max(1, bottom - top)
    canvas = Image.new("L", (width * _SUPERSAMPLE, height * _SUPERSAMPLE), 0)
    draw = ImageDraw.Draw(canvas)
    origin = np.array([left, top])
    for outlines, value in ((shape.polygons, 255), (shape.holes, 0)):
        for outline in outlines:
            # -0.5: PIL's integer coordinates are pixel centres.
            draw.polygon([tuple(point) for point in ((outline - origin) * _SUPERSAMPLE - 0.5).tolist()], fill=value)
    return top, left, np.asarray(canvas.reduce(_SUPERSAMPLE), np.float32) / 255.0


def _inner(cover: Pixels, px: float) -> Pixels:
    """Return 1 well inside the covered area, falling to 0 at its border over about two pixels."""
    padded = Image.fromarray(np.pad((cover * 255).astype(np.uint8), 3))
    blurred = np.asarray(padded.filter(ImageFilter.BoxBlur(1.6 * px)), np.float32)[3:-3, 3:-3] / 255.0
    return np.clip(2.0 * blurred - 1.0, 0.0, 1.0)


def _shade(size_hw: tuple[int, int], rng: np.random.Generator) -> Pixels:
    """Draw a soft light from one upper side, 1.06 down to 0.88."""
    side = float(rng.uniform(-0.4, 0.4))
    y = np.linspace(1.0, -1.0, size_hw[0], dtype=np.float32)[:, None]
    x = np.linspace(-1.0, 1.0, size_hw[1], dtype=np.float32)[None, :]
    return 0.97 + 0.07 * y + 0.05 * np.float32(side) * x
