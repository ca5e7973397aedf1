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

import cv2
import numpy as np
from numpy.typing import NDArray

from label_config.geometry.coordinates import FloatArray, pct_to_px, px_to_pct

BoolMask = NDArray[np.bool_]
Ring = list[list[float]]

_TOLERANCES_PX = (4.0, 2.0, 1.0, 0.5, 0.25)  # coarse first; the exact outline when none is good enough
_MOST_OUTLINES = 100


def mask_to_polygons_pct(mask: BoolMask, min_iou: float = 0.985) -> list[Ring]:
    """One ring per connected part of a bool mask of shape (H, W), largest first; `[]` for an empty mask.

    The rings give back the mask with an IoU of at least `min_iou`, unless it has more than 100 outlines;
    with 1.0 they give back exactly the mask. Specks that the IoU can do without are left out.

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
        _fill(mask, pct_to_px(points, image_wh))
    return mask


def _parts_px(mask: BoolMask, min_iou: float) -> list[FloatArray]:
    if mask.ndim != 2 or mask.dtype != np.bool_:
        raise ValueError(f"expected a bool mask of shape (H, W), got {mask.dtype} of shape {mask.shape}")
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return []
    top, left = int(rows[0]), int(columns[0])
    crop = mask[top : rows[-1] + 1, left : columns[-1] + 1]
    outlines = _outlines_px(crop)
    if min_iou < 1.0:
        outlines = _largest(outlines)
    parts: list[FloatArray] = []
    for tolerance_px in (*_TOLERANCES_PX, 0.0):
        parts = _simplified(outlines, tolerance_px)
        if not tolerance_px or (min_iou < 1.0 and _iou(parts, crop) >= min_iou):
            break
    return [part + np.array((left, top), dtype=np.float64) for part in parts]


def _outlines_px(mask: BoolMask) -> list[tuple[FloatArray, list[FloatArray]]]:
    """Per part its outline and the outlines of its holes, a quarter of a pixel inside the true border.

    OpenCV traces through pixel centres, which shrinks every shape by half a pixel and turns thin lines into
    nothing. On the mask at twice the size the same trace passes between the centres of foreground and background
    pixels of the original, so filling it by pixel centres gives the mask back exactly.
    """
    doubled = mask.astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1)
    contours, hierarchy = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    rings = [(contour[:, 0].astype(np.float64) + 0.5) / 2 for contour in contours]
    holes: dict[int, list[FloatArray]] = {}
    for ring, (_, _, _, parent) in zip(rings, hierarchy[0], strict=True):
        if parent >= 0:
            holes.setdefault(int(parent), []).append(ring)
    return [(ring, holes.get(idx, [])) for idx, ring in enumerate(rings) if hierarchy[0][idx][3] < 0]


def _largest(outlines: list[tuple[FloatArray, list[FloatArray]]]) -> list[tuple[FloatArray, list[FloatArray]]]:
    """The outlines and holes among the largest ones; a hole only with the outline around it."""
    areas = sorted((_area(ring) for outer, holes in outlines for ring in (outer, *holes)), reverse=True)
    smallest_px2 = areas[min(len(areas), _MOST_OUTLINES) - 1]
    return [
        (outer, [hole for hole in holes if _area(hole) >= smallest_px2][:_MOST_OUTLINES])
        for outer, holes in outlines
        if _area(outer) >= smallest_px2
    ][:_MOST_OUTLINES]


def _simplified(outlines: list[tuple[FloatArray, list[FloatArray]]], tolerance_px: float) -> list[FloatArray]:
    """One ring per part, largest first, with at most `tolerance_px` between it and the outline."""
    smallest_px2 = 4 * tolerance_px**2
    sized = sorted(((_area(outer), outer, holes) for outer, holes in outlines), key=lambda part: -part[0])
    parts: list[FloatArray] = []
    for area, outer, holes in sized:
        if parts and area < smallest_px2:
            break
        kept_holes = [hole for hole in holes if _area(hole) >= smallest_px2]
        parts.append(_join([_thinned(ring, tolerance_px) for ring in (outer, *kept_holes)]))
    return parts


def _thinned(ring: FloatArray, tolerance_px: float) -> FloatArray:
    if not tolerance_px:
        return ring
    thinned = cv2.approxPolyDP(ring.astype(np.float32), tolerance_px, closed=True)[:, 0]
    return thinned.astype(np.float64) if len(thinned) >= 3 else ring


def _join(rings: list[FloatArray]) -> FloatArray:
    """One ring that walks all of them, with a slit between the two nearest corners of each pair."""
    joined = rings[0]
    for ring in rings[1:]:
        at, start = _nearest(joined, ring)
        walk = np.concatenate([ring[start:], ring[: start + 1]])
        joined = np.concatenate([joined[: at + 1], walk, joined[at:]])
    return joined


def _nearest(ring: FloatArray, other: FloatArray) -> tuple[int, int]:
    """Indices of the two corners with the least distance, in blocks so that memory stays small."""
    best = (np.inf, 0, 0)
    for first in range(0, len(other), 256):
        block = other[first : first + 256]
        distances = ((ring[:, None] - block[None]) ** 2).sum(axis=-1)
        flat = int(distances.argmin())
        at, start = divmod(flat, len(block))
        if distances[at, start] < best[0]:
            best = (float(distances[at, start]), at, first + start)
    return best[1], best[2]


def _area(ring: FloatArray) -> float:
    x, y = ring[:, 0], ring[:, 1]
    return float(abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2)


def _iou(parts: list[FloatArray], mask: BoolMask) -> float:
    filled = np.zeros_like(mask)
    for part in parts:
        _fill(filled, part)
    return float((filled & mask).sum() / max((filled | mask).sum(), 1))


def _fill(mask: BoolMask, ring_px: FloatArray) -> None:
    """Set the pixels of `mask` whose centre the ring winds around.

    Every edge adds its direction at the first pixel centre to the right of where it crosses a row; the running
    sum along the row is the winding number. The two walks along a slit add and take away the same.
    """
    height, width = mask.shape
    start, end = ring_px, np.roll(ring_px, -1, axis=0)
    downward = start[:, 1] < end[:, 1]
    # Both walks along a slit must compute the same crossing, so every edge is taken from its upper end.
    upper, lower = np.where(downward[:, None], start, end), np.where(downward[:, None], end, start)
    first_row = np.clip(np.ceil(upper[:, 1] - 0.5), 0, height).astype(np.int64)
    end_row = np.clip(np.ceil(lower[:, 1] - 0.5), 0, height).astype(np.int64)
    num_rows = np.maximum(end_row - first_row, 0)
    edge = np.repeat(np.arange(len(ring_px)), num_rows)
    if not edge.size:
        return
    row = np.arange(edge.size) - np.repeat(np.cumsum(num_rows) - num_rows, num_rows) + first_row[edge]
    slope = (lower[edge, 0] - upper[edge, 0]) / (lower[edge, 1] - upper[edge, 1])
    crossing_x = upper[edge, 0] + (row + 0.5 - upper[edge, 1]) * slope
    column = np.clip(np.ceil(crossing_x - 0.5), 0, width).astype(np.int64)
    top, bottom = int(row.min()), int(row.max()) + 1
    winding = np.zeros((bottom - top, width + 1), dtype=np.int32)
    np.add.at(winding, (row - top, column), np.where(downward[edge], 1, -1))
    mask[top:bottom] |= np.cumsum(winding, axis=1)[:, :width] != 0


def _to_ring_pct(ring_px: FloatArray, mask: BoolMask) -> Ring:
    height, width = mask.shape
    ring: Ring = np.clip(px_to_pct(ring_px, (width, height)), 0.0, 100.0).tolist()
    return ring
