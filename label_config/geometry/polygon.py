"""Bool mask <-> polygons in percent.

A Label Studio polygon region is one ring: it has neither holes nor parts. So holes are joined to their outline,
and parts to each other, by a slit of no width: both walks along the slit cancel out, on the page (nonzero
winding, as a canvas fills) and here, and the region keeps its exact area. `mask_to_polygon_pct` gives that one
ring; `mask_to_polygons_pct` gives one ring per part.

A mask is turned into as few corners as keep the stated IoU, because people drag the corners afterwards; the
same people are served no better by hundreds of specks, so only the largest outlines are kept.
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
    """One ring per connected part of a bool mask of shape (H, W), largest first; `[]` for an empty mask.

    The rings give back the mask with an IoU of at least `min_iou`, unless that takes more than 100 outlines,
    2000 corners, or following a border of more than 12000 pixels; with 1.0 they give back exactly the mask, however
    many corners that takes. Specks that the IoU can do without are left out.

    Raises:
        ValueError: `mask` is not two-dimensional bool.
    """
    return [_to_ring_pct(part, mask) for part in _parts_px(mask, min_iou)]


def mask_to_polygon_pct(mask: BoolMask, min_iou: float = 0.985) -> Ring:
    """All parts of a mask as the single ring that a polygon region can hold; `[]` for an empty mask."""
    parts = _parts_px(mask, min_iou)
    return _to_ring_pct(_join(parts), mask) if parts else []


def polygons_pct_to_mask(polygons: Sequence[Sequence[Sequence[float]]], image_wh: tuple[int, int]) -> BoolMask:
    """The mask, shape (H, W), of the pixels whose centre lies in one of the polygons (nonzero winding)."""
    width, height = image_wh
    mask = np.zeros((height, width), dtype=np.bool_)
    for polygon in polygons:
        points = np.asarray(polygon, dtype=np.float64)
        if points.ndim != 2 or points.shape[0] < 3 or points.shape[1] != 2 or not np.isfinite(points).all():
            raise ValueError(f"expected a polygon of at least 3 points [x, y], got an array of shape {points.shape}")
        fill_rings(mask, [pct_to_px(points, image_wh)])
    return mask


def _parts_px(mask: BoolMask, min_iou: float) -> list[FloatArray]:
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
    """One ring that walks all of them, with a slit from each to a corner near it of those before."""
    joined, *others = [ring.view(np.complex128)[:, 0] for ring in rings]  # x + yi: a distance in few calls
    for ring in others:
        # The nearest of all pairs would take a thousand times the time where there are thousands of corners.
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
