"""The mask of any stored result item, whatever control drew it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from label_config.geometry.bitmask_png import decode_bitmask_png
from label_config.geometry.brush_rle import decode_brush_rle
from label_config.geometry.coordinates import ellipse_contains, px_to_pct, rectangle_corners_px
from label_config.geometry.polygon import polygons_pct_to_mask

BoolMask = NDArray[np.bool_]

MAX_IMAGE_PIXELS = 400_000_000


def region_mask(item: Mapping[str, Any]) -> BoolMask | None:
    """Return the mask, shape (original_height, original_width), or None if the item draws no area.

    Brush, bitmask, polygon, vector, rectangle and ellipse are read, also from per-region text items, because Label
    Studio repeats the region's geometry in each. Key points, lines and items without geometry give None.

    Raises:
        ValueError: the geometry cannot be read; the message has the reason.
    """
    value = item.get("value")
    if not isinstance(value, Mapping):
        return None
    shape = next((key for key in _READERS if all(part in value for part in key)), None)
    if shape is None:
        return None
    image_wh = _image_wh(item)
    try:
        return _READERS[shape](value, image_wh)
    except (KeyError, TypeError, OverflowError) as error:
        raise ValueError(f"the {'/'.join(shape)} of the region cannot be read: {error!r}") from error


def _image_wh(item: Mapping[str, Any]) -> tuple[int, int]:
    width, height = item.get("original_width"), item.get("original_height")
    if not isinstance(width, int) or not isinstance(height, int) or width < 1 or height < 1:
        raise ValueError(f"expected original_width and original_height in pixels, got {width!r} and {height!r}")
    if width * height > MAX_IMAGE_PIXELS:
        raise ValueError(f"an image of {width}x{height} pixels is more than the {MAX_IMAGE_PIXELS} that are read")
    return width, height


def _brush(value: Mapping[str, Any], image_wh: tuple[int, int]) -> BoolMask:
    return decode_brush_rle(value["rle"], image_wh[::-1])


def _bitmask(value: Mapping[str, Any], image_wh: tuple[int, int]) -> BoolMask:
    return decode_bitmask_png(value["imageDataURL"], image_wh[::-1])


def _polygon(value: Mapping[str, Any], image_wh: tuple[int, int]) -> BoolMask | None:
    return polygons_pct_to_mask([value["points"]], image_wh) if value.get("closed", True) else None


def _vector(value: Mapping[str, Any], image_wh: tuple[int, int]) -> BoolMask | None:
    if not value.get("closed"):
        return None
    if any(vertex.get("isBezier") for vertex in value["vertices"]):
        raise ValueError("a vector with Bezier curves is not read; redraw it with straight edges")
    return polygons_pct_to_mask([[(vertex["x"], vertex["y"]) for vertex in value["vertices"]]], image_wh)


def _ellipse(value: Mapping[str, Any], image_wh: tuple[int, int]) -> BoolMask:
    return ellipse_contains(value, image_wh)


def _rectangle(value: Mapping[str, Any], image_wh: tuple[int, int]) -> BoolMask | None:
    corners_pct = px_to_pct(rectangle_corners_px(value, image_wh), image_wh)
    if not np.isfinite(corners_pct).all():
        raise ValueError("the rectangle has a coordinate that is not a number")
    return polygons_pct_to_mask([corners_pct.tolist()], image_wh)


_READERS = {
    ("rle",): _brush,
    ("imageDataURL",): _bitmask,
    ("points",): _polygon,
    ("vertices",): _vector,
    ("x", "y", "radiusX", "radiusY"): _ellipse,
    ("x", "y", "width", "height"): _rectangle,  # a key point has a width but no height
}
