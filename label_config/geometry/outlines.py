"""Bool mask -> the rings around its parts and holes, in pixels, with as few corners as keep its shape.

Annotators drag the corners afterwards, so few corners are better than many. The search goes from coarse to fine and
stops when the IoU is high enough. `polygon` joins the rings to one, as Label Studio needs it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from label_config.geometry.coordinates import FloatArray
from label_config.geometry.winding import fill_rings

BoolMask = NDArray[np.bool_]
Contour = NDArray[Any]  # int32 (N, 1, 2), as OpenCV traces it, in units of half a block
Part = list[FloatArray]  # the ring around a connected part, shape (N, 2), then the rings around its holes

MOST_OUTLINES = 100
MOST_CORNERS = 2000
_TOLERANCES_PX = (4.0, 2.0, 1.0, 0.5, 0.25, 0.0)  # coarse first; 0 is the exact outline
_LONGEST_BORDER_PX = 12_000
_LARGE_PX = 500_000
_HALF = 127  # of a coverage from 0 to 255


def simplified_parts(mask: BoolMask, min_iou: float) -> list[Part]:
    """Return the parts of a mask of shape (H, W), largest first, with the fewest corners that reach the IoU.

    If that takes more than 100 outlines, 2000 corners or a border of 12000 pixels, return the best within these limits.
    """
    best: list[Part] = []
    # Coarse resolutions first.
    for block_px, blocks in _levels(mask):
        # At each resolution trace the outlines once, then simplify them less and less.
        traced = _largest(_traced(blocks), MOST_OUTLINES)
        for tolerance_px in _TOLERANCES_PX:
            if block_px > 1 and tolerance_px < block_px / 2:
                break  # finer than these blocks are
            parts = _thinned(traced, block_px, tolerance_px)
            if best and sum(len(ring) for part in parts for ring in part) > MOST_CORNERS:
                return best
            best = parts
            # The coarsest parts that reach the IoU have the fewest corners.
            if _iou(parts, mask) >= min_iou:
                return best
    return best


def exact_parts(mask: BoolMask) -> list[Part]:
    """Return the parts of a mask of shape (H, W), largest first; filled together they are exactly the mask."""
    return _thinned(_largest(_traced(mask), None), block_px=1, tolerance_px=0.0)


def _levels(mask: BoolMask) -> Iterator[tuple[int, BoolMask]]:
    """Yield resolutions, coarse first: a block's side in pixels, and which blocks are at least half in the mask.

    A large mask is tried in blocks of 2 pixels first, which takes a quarter of the time. If the border is too long for
    a polygon that a person can edit, there is only one resolution: smoothed blocks, so large that it is short enough.
    """
    # A border of usual length: half resolution for a large mask, then full resolution.
    if _border_px(mask) <= _LONGEST_BORDER_PX:
        if mask.size > _LARGE_PX:
            yield 2, _halved(mask.view(np.uint8) * np.uint8(255)) >= _HALF
        yield 1, mask
        return
    # A border that is too long: halve and smooth until it is short enough.
    block_px, smooth = 1, mask
    coverage: NDArray[np.uint8] = mask.view(np.uint8) * np.uint8(255)
    while _border_px(smooth) > _LONGEST_BORDER_PX:
        block_px, coverage = 2 * block_px, _halved(coverage)
        smooth = cv2.GaussianBlur(coverage, (0, 0), 1.0) >= _HALF
    # If no block is half covered (thinly scattered specks), use the mask itself.
    yield (block_px, smooth) if smooth.any() else (1, mask)


def _border_px(mask: BoolMask) -> int:
    """Count the pairs of neighbouring pixels of which one is in the mask."""
    return int(np.count_nonzero(mask[:, 1:] != mask[:, :-1]) + np.count_nonzero(mask[1:] != mask[:-1]))


def _halved(coverage: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Average the coverage (0 to 255) over blocks of 2x2; an odd last row or column is padded with zeros."""
    height, width = coverage.shape
    padded = cv2.copyMakeBorder(coverage, 0, height % 2, 0, width % 2, cv2.BORDER_CONSTANT, value=0)
    halved_wh = (padded.shape[1] // 2, padded.shape[0] // 2)
    return np.asarray(cv2.resize(padded, halved_wh, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _traced(mask: BoolMask) -> list[list[Contour]]:
    """Trace each connected part: its outline, then the outlines of its holes, 1/4 pixel inside the true border.

    OpenCV traces through pixel centres, which shrinks every shape by half a pixel and lets thin lines vanish. On the
    mask at twice the size, the same trace passes between the centres of foreground and background pixels of the
    original, so filling it by pixel centres gives exactly the mask.
    """
    # Trace at twice the size, in two levels: outer outlines without a parent, holes with one.
    height, width = mask.shape
    doubled = cv2.resize(mask.view(np.uint8), (2 * width, 2 * height), interpolation=cv2.INTER_NEAREST)
    contours, hierarchy = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    if not contours:
        return []
    # Group holes with the part that they are in.
    parents = hierarchy[0][:, 3].tolist()
    parts: dict[int, list[Contour]] = {
        idx: [contour] for idx, (contour, parent) in enumerate(zip(contours, parents, strict=True)) if parent < 0
    }
    for contour, parent in zip(contours, parents, strict=True):
        if parent >= 0:
            parts[parent].append(contour)
    return list(parts.values())


def _largest(parts: list[list[Contour]], most: int | None) -> list[list[tuple[float, Contour]]]:
    """Keep the `most` largest outlines, largest part first, with their areas; a hole only together with its part."""
    # Every outline with its area, in units of a quarter of a block.
    sized = [[(cv2.contourArea(contour), contour) for contour in part] for part in parts]
    areas = sorted((area for part in sized for area, _ in part), reverse=True)
    # The area of the last outline that is kept; parts and holes below it are dropped.
    smallest = areas[most - 1] if most and len(areas) > most else 0.0
    kept = [[part[0], *(hole for hole in part[1:] if hole[0] >= smallest)] for part in sized if part[0][0] >= smallest]
    return sorted(kept, key=lambda part: -part[0][0])[:most]


def _thinned(parts: list[list[tuple[float, Contour]]], block_px: int, tolerance_px: float) -> list[Part]:
    """Simplify outlines to rings in pixels that deviate from them by at most the tolerance.

    Parts and holes that are smaller than the tolerance are dropped, but never the largest part.
    """
    # Tolerance in half blocks, as the contours are; an outline below a square of twice that side is dropped.
    tolerance = 2 * tolerance_px / block_px
    smallest = 4 * tolerance**2
    return [
        [
            _thinned_ring(contour, tolerance, block_px)
            for idx, (area, contour) in enumerate(part)
            if not idx or area >= smallest
        ]
        for position, part in enumerate(parts)
        if not position or part[0][0] >= smallest
    ]


def _thinned_ring(contour: Contour, tolerance: float, block_px: int) -> FloatArray:
    """Simplify one outline (Douglas-Peucker), unless fewer than three corners would be left; convert it to pixels."""
    if tolerance:
        thinned = cv2.approxPolyDP(contour, tolerance, closed=True)
        contour = thinned if len(thinned) >= 3 else contour
    return (contour[:, 0].astype(np.float64) + 0.5) * (block_px / 2)


def _iou(parts: list[Part], mask: BoolMask) -> float:
    """Fill the parts and compare them with the mask."""
    filled = np.zeros(mask.shape, dtype=np.bool_)
    fill_rings(filled, [ring for part in parts for ring in part])
    both = np.count_nonzero(filled & mask)
    return both / max(np.count_nonzero(filled) + np.count_nonzero(mask) - both, 1)
