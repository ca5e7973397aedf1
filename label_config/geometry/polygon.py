"""Bool mask <-> polygons in percent.

A polygon region of Label Studio is one ring, without holes or separate parts. Therefore holes are joined to their
outline, and parts to each other, by slits of zero width. The two directions along a slit cancel out, on the page
(nonzero winding, as a canvas fills) and here, so the region keeps its exact area. `mask_to_polygon_pct` returns that
one ring; `mask_to_polygons_pct` returns one ring per part.

A ring has as few corners as the requested IoU allows, because annotators drag the corners afterwards. For the same
reason only the largest outlines are kept, not hundreds of specks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from label_config.geometry.coordinates import FloatArray, pct_to_px, px_to_pct
from label_config.geometry.outlines import exact_parts, simplified_parts
from label_config.geometry.winding import fill_rings

BoolMask = NDArray[np.bool_]
Ring = list[list[float]]


def mask_to_polygons_pct(mask: BoolMask, min_iou: float = 0.985) -> list[Ring]:
    """Return one ring per connected part of a bool mask of shape (H, W), largest first; `[]` for an empty mask.

    Filled, the rings have an IoU of at least `min_iou` with the mask, unless that takes more than 100 outlines, 2000
    corners, or a border of more than 12000 pixels. With 1.0 they are exactly the mask, with any number of corners.
    Specks that the IoU does not need are left out.

    Raises:
        ValueError: `mask` is not two-dimensional bool.
    """
    return [_to_ring_pct(part, mask) for part in _parts_px(mask, min_iou)]


def mask_to_polygon_pct(mask: BoolMask, min_iou: float = 0.985) -> Ring:
    """Return all parts of a mask as the single ring of a polygon region; `[]` for an empty mask."""
    parts = _parts_px(mask, min_iou)
    return _to_ring_pct(_join(parts), mask) if parts else []


def polygons_pct_to_mask(polygons: Sequence[Sequence[Sequence[float]]], image_wh: tuple[int, int]) -> BoolMask:
    """Return the mask, shape (H, W), of the pixels whose centre lies in one of the polygons (nonzero winding).

    Raises:
        ValueError: a polygon has fewer than three points, or a point is not finite.
    """
    width, height = image_wh
    mask = np.zeros((height, width), dtype=np.bool_)
    for polygon in polygons:
        points = np.asarray(polygon, dtype=np.float64)
        if points.ndim != 2 or points.shape[0] < 3 or points.shape[1] != 2 or not np.isfinite(points).all():
            raise ValueError(f"expected a polygon of at least 3 points [x, y], got an array of shape {points.shape}")
        fill_rings(mask, [pct_to_px(points, image_wh)])
    return mask


def _parts_px(mask: BoolMask, min_iou: float) -> list[FloatArray]:
    """Return one ring per part in pixels, its holes joined by slits. Only the mask's bounding box is processed."""
    if mask.ndim != 2 or mask.dtype != np.bool_:
        raise ValueError(f"expected a bool mask of shape (H, W), got {mask.dtype} of shape {mask.shape}")
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return []
    top, left = int(rows[0]), int(columns[0])
    crop = mask[top : rows[-1] + 1, left : columns[-1] + 1]
    crop = np.ascontiguousarray(crop)
    parts = exact_parts(crop) if min_iou >= 1.0 else simplified_parts(crop, min_iou)
    return [_join(part) + np.array((left, top), dtype=np.float64) for part in parts]


def _join(rings: list[FloatArray]) -> FloatArray:
    """Join rings into one, with a slit from each ring to a near corner of the rings before it."""
    joined, *others = [ring.view(np.complex128)[:, 0] for ring in rings]  # x + yi, so that distances take few calls
    for ring in others:
        # Nearest corners from both sides, starting at an arbitrary one. The nearest of all pairs would take a thousand
        # times as long with thousands of corners.
        start = _nearest(ring, joined[_nearest(joined, ring[0])])
        at = _nearest(joined, ring[start])
        joined = np.concatenate([joined[: at + 1], ring[start:], ring[: start + 1], joined[at:]])
    return joined[:, None].view(np.float64)


def _nearest(ring: NDArray[np.complex128], point: np.complex128) -> int:
    offsets = ring - point
    return int((offsets * offsets.conj()).real.argmin())


def _to_ring_pct(ring_px: FloatArray, mask: BoolMask) -> Ring:
    height, width = mask.shape
    ring: Ring = np.clip(px_to_pct(ring_px, (width, height)), 0.0, 100.0).tolist()
    return ring
