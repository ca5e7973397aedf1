"""Percent <-> pixels. No other file converts between them.

Label Studio's percentages are of the upright (EXIF-corrected) image as it is stored, also when the annotator has
rotated the view, so `image_rotation` is not used. Pixel coordinates are continuous: the pixel in column 0 covers x from
0 to 1 and its centre is at 0.5.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]


def pct_to_px(points_pct: ArrayLike, image_wh: tuple[int, int]) -> FloatArray:
    """Convert points of shape (..., 2) from percent to pixels."""
    return np.asarray(points_pct, dtype=np.float64) * np.asarray(image_wh, dtype=np.float64) / 100.0


def px_to_pct(points_px: ArrayLike, image_wh: tuple[int, int]) -> FloatArray:
    """Convert points of shape (..., 2) from pixels to percent."""
    return np.asarray(points_px, dtype=np.float64) * 100.0 / np.asarray(image_wh, dtype=np.float64)


def rectangle_corners_px(value: Mapping[str, Any], image_wh: tuple[int, int]) -> FloatArray:
    """Return the four corners, shape (4, 2), of a rectangle's value; `rotation` is clockwise about the first corner."""
    origin = pct_to_px((value["x"], value["y"]), image_wh)
    width, height = pct_to_px((value["width"], value["height"]), image_wh)
    corners = np.array([(0.0, 0.0), (width, 0.0), (width, height), (0.0, height)])
    return origin + _rotate(corners, float(value.get("rotation") or 0.0))


def rectangle_bounds_px(value: Mapping[str, Any], image_wh: tuple[int, int]) -> tuple[float, float, float, float]:
    """Return the bounds x0, y0, x1, y1 of a rectangle's value, cut at the image's border."""
    corners = np.clip(rectangle_corners_px(value, image_wh), 0.0, np.asarray(image_wh, dtype=np.float64))
    (x0, y0), (x1, y1) = corners.min(axis=0), corners.max(axis=0)
    return float(x0), float(y0), float(x1), float(y1)


def ellipse_contains(value: Mapping[str, Any], image_wh: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the mask, shape (H, W), of the pixels whose centre lies in an ellipse's value."""
    width, height = image_wh
    center = pct_to_px((value["x"], value["y"]), image_wh)
    radii = pct_to_px((value["radiusX"], value["radiusY"]), image_wh)
    if min(radii) <= 0:
        return np.zeros((height, width), dtype=np.bool_)
    angle = np.deg2rad(float(value.get("rotation") or 0.0))
    dx = np.arange(width) + 0.5 - center[0]
    dy = (np.arange(height) + 0.5 - center[1])[:, None]
    along = (dx * np.cos(angle) + dy * np.sin(angle)) / radii[0]
    across = (dy * np.cos(angle) - dx * np.sin(angle)) / radii[1]
    inside: NDArray[np.bool_] = along**2 + across**2 <= 1.0
    return inside


def _rotate(points: FloatArray, degrees: float) -> FloatArray:
    # y points down, so a positive angle turns clockwise, as Label Studio's canvas does.
    angle = np.deg2rad(degrees)
    rotated: FloatArray = points @ np.array([(np.cos(angle), np.sin(angle)), (-np.sin(angle), np.cos(angle))])
    return rotated
