"""Find every region of an image without a prompt: a grid of points, filters, and the best of near duplicates.

This is SAM's automatic mask generation (Segment Anything, arXiv:2304.02643, appendix B), in two passes instead of one
(docs/develop/decisions/segmentation.md). A part and its whole are both kept, because only masks that agree are
duplicates. Masks are scaled to the image only after all filters, so that memory does not grow with its size.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from worker.sam.masks import STABILITY_OFFSET, Frame, MaskWithLogits, full_size_rle

# N masks or points, K masks per point, h w cells of SAM's low resolution

MOST_REGIONS = 1000  # per image; the best ones are kept
_POOL_BYTES = 256 * 1024**2  # beyond this size of the pool, duplicates are dropped before the next batch

# (N, 2) points in pixels of the image -> logits (N, K, h, w), predicted IoUs (N, K), on any device
Decode = Callable[[NDArray[np.float64]], tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True, slots=True)
class PointDecoder:
    """SAM's mask decoder on one image, for prompts of one point each.

    Attributes:
        decode: computes the masks of some points.
        batch: how many points to decode together.
        frame: how the image lies in SAM's square.
        threshold: the logit above which a cell is in a mask.
    """

    decode: Decode
    batch: int
    frame: Frame
    threshold: float


@dataclass(frozen=True, slots=True)
class RegionFilter:
    """Which masks are regions. Where segment_anything's own generator has the option, its default is the default here.

    Attributes:
        min_predicted_iou: bound of SAM's predicted IoU.
        min_stability: bound of the stability, see `MaskWithLogits`.
        min_area_px: smaller masks are dropped; so are islands and holes of this size in larger ones.
        max_area_unit: masks that cover more of the image (0 to 1) are dropped.
        max_iou: two masks that agree more than this are duplicates.
    """

    min_predicted_iou: float = 0.88
    min_stability: float = 0.95
    min_area_px: float = 100.0
    max_area_unit: float = 0.9
    max_iou: float = 0.7

    def __post_init__(self) -> None:
        """Check the bounds.

        Raises:
            ValueError: a share is outside 0 to 1, or the area is negative.
        """
        shares = (self.min_predicted_iou, self.min_stability, self.max_area_unit, self.max_iou)
        if not all(0 <= share <= 1 for share in shares) or not self.min_area_px >= 0:
            raise ValueError(f"expected shares of 0 to 1 and an area of at least 0 px, got {self}")


# sam-nano has softer masks (soft training targets) and lower predicted IoUs: docs/develop/decisions/segmentation.md.
SMALL_SAM = RegionFilter(min_predicted_iou=0.7, min_stability=0.5)


@dataclass(frozen=True, slots=True)
class _Pool:
    """Masks that passed the filters. `bits` are the masks over the valid cells, packed into words, (N, words)."""

    logits: NDArray[np.float16]  # (N, h, w)
    bits: NDArray[np.uint64]
    num_cells: NDArray[np.int64]
    predicted_iou: NDArray[np.float32]
    stability: NDArray[np.float32]

    @property
    def score(self) -> NDArray[np.float32]:
        return self.predicted_iou * self.stability

    @property
    def num_bytes(self) -> int:
        return self.logits.nbytes + self.bits.nbytes

    def covered(self, frame: Frame) -> NDArray[np.bool_]:
        """Return the valid cells that any of the masks covers, (valid_h, valid_w)."""
        valid_h, valid_w = frame.valid_hw
        packed = np.bitwise_or.reduce(self.bits, axis=0).view(np.uint8)
        return np.unpackbits(packed, count=valid_h * valid_w).reshape(valid_h, valid_w).astype(np.bool_)

    def taken(self, idxs: NDArray[np.intp]) -> _Pool:
        """Return the masks at these indices."""
        return _Pool(
            self.logits[idxs], self.bits[idxs], self.num_cells[idxs], self.predicted_iou[idxs], self.stability[idxs]
        )


@dataclass(frozen=True, slots=True)
class PointGrid:
    """Points (x, y) at the centres of equal cells of an image, in pixels: (num_y, num_x, 2)."""

    points_px: NDArray[np.float64]

    @classmethod
    def of_image(cls, image_hw: tuple[int, int], points_per_side: int) -> PointGrid:
        """Place `points_per_side` points along the longer side, and equally dense ones along the other.

        Raises:
            ValueError: `points_per_side` is below 1.
        """
        if points_per_side < 1:
            raise ValueError(f"points_per_side must be at least 1, got {points_per_side}")
        height, width = image_hw
        spacing_px = max(width, height) / points_per_side
        num_x, num_y = max(1, round(width / spacing_px)), max(1, round(height / spacing_px))
        ys, xs = np.mgrid[:num_y, :num_x]
        return cls(np.stack([(xs + 0.5) * width / num_x, (ys + 0.5) * height / num_y], axis=-1))

    def every_second(self) -> NDArray[np.bool_]:
        """Select every second point of every second row, (num_y, num_x); also where there is only one row."""
        num_y, num_x, _ = self.points_px.shape
        chosen = np.zeros((num_y, num_x), dtype=np.bool_)
        chosen[num_y > 1 :: 2, num_x > 1 :: 2] = True
        return chosen

    def inside(self, covered: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Select the points that lie on covered cells (valid_h, valid_w), (num_y, num_x)."""
        num_y, num_x, _ = self.points_px.shape
        rows, columns = (
            ((np.arange(num) + 0.5) * extent / num).astype(np.intp)
            for num, extent in zip((num_y, num_x), covered.shape, strict=True)
        )
        return covered[np.ix_(rows, columns)]


def find_regions(
    decoder: PointDecoder, grid: PointGrid, keep: RegionFilter, max_regions: int | None
) -> list[MaskWithLogits]:
    """Find the regions at the points of `grid`, best first (predicted IoU times stability).

    Args:
        decoder: decodes the points.
        grid: the points to decode.
        keep: which masks are regions.
        max_regions: the largest number of regions; None: 1000.
    """
    num_most = MOST_REGIONS if max_regions is None else min(max_regions, MOST_REGIONS)
    # First pass: every second point of every second row, a quarter of the points.
    first = grid.every_second()
    pool = _decoded(decoder, grid.points_px[first], None, keep)
    # Second pass: the other points, but only inside of the masks of the first pass, where parts may lie.
    second = grid.inside(pool.covered(decoder.frame)) & ~first
    pool = _decoded(decoder, grid.points_px[second], pool, keep)
    # Drop duplicates, then scale the best masks to the image.
    distinct = _distinct(pool, keep.max_iou, MOST_REGIONS)
    return list(itertools.islice(_regions(distinct, decoder, keep), num_most))


def _decoded(decoder: PointDecoder, points_N2: NDArray[np.float64], pool: _Pool | None, keep: RegionFilter) -> _Pool:
    """Decode points batch by batch and add the masks that pass the filters to `pool`."""
    pools = [] if pool is None else [pool]
    for start in range(0, len(points_N2), decoder.batch):
        logits_NKHW, ious_NK = decoder.decode(points_N2[start : start + decoder.batch])
        pools.append(_filtered(logits_NKHW.flatten(0, 1), ious_NK.flatten(), decoder, keep))
        if sum(one.num_bytes for one in pools) > _POOL_BYTES:
            pools = [_distinct(_joined(pools), keep.max_iou, MOST_REGIONS)]
    return _joined(pools)


def _filtered(logits_NHW: torch.Tensor, ious_N: torch.Tensor, decoder: PointDecoder, keep: RegionFilter) -> _Pool:
    """Keep the masks that pass the filters and move them to the CPU."""
    frame, threshold = decoder.frame, decoder.threshold
    # The predicted IoU first, because it needs no pixels and drops most masks.
    ious_N = ious_N.float().clamp(0, 1)
    chosen_N = ious_N >= keep.min_predicted_iou
    logits_NHW, ious_N = logits_NHW[chosen_N].float(), ious_N[chosen_N]
    # Areas at the threshold and at both sides of it, without the padding; stability is the ratio of the latter two.
    valid_h, valid_w = frame.valid_hw
    inside_NHW = logits_NHW[:, :valid_h, :valid_w]
    areas_N = (inside_NHW > threshold).sum((1, 2))
    inner_N = (inside_NHW > threshold + STABILITY_OFFSET).sum((1, 2))
    outer_N = (inside_NHW > threshold - STABILITY_OFFSET).sum((1, 2))
    stability_N = inner_N / outer_N.clamp(min=1)
    # The other filters.
    fits_N = (
        (stability_N >= keep.min_stability)
        & (areas_N > 0)
        & (areas_N * frame.cell_area_px >= keep.min_area_px)
        & (areas_N <= keep.max_area_unit * valid_h * valid_w)
    )
    # The masks as bits, padded to whole words of 64 cells.
    on_NHW = (inside_NHW[fits_N] > threshold).flatten(1).cpu().numpy()
    bits = np.packbits(on_NHW, axis=1)
    bits = np.pad(bits, ((0, 0), (0, -bits.shape[1] % 8)))
    return _Pool(
        logits_NHW[fits_N].half().cpu().numpy(),
        np.ascontiguousarray(bits).view(np.uint64),
        areas_N[fits_N].cpu().numpy(),
        ious_N[fits_N].cpu().numpy(),
        stability_N[fits_N].float().cpu().numpy(),
    )


def _joined(pools: list[_Pool]) -> _Pool:
    """Concatenate pools."""
    if len(pools) == 1:
        return pools[0]
    return _Pool(
        np.concatenate([pool.logits for pool in pools]),
        np.concatenate([pool.bits for pool in pools]),
        np.concatenate([pool.num_cells for pool in pools]),
        np.concatenate([pool.predicted_iou for pool in pools]),
        np.concatenate([pool.stability for pool in pools]),
    )


def _distinct(pool: _Pool, max_iou: float, num_most: int) -> _Pool:
    """Return the best masks, best first, dropping those that agree with a better one by more than `max_iou`."""
    # Equal scores keep the order of the points, so that the result does not depend on the batch size.
    order = np.argsort(-pool.score, kind="stable")
    kept = np.empty(min(len(order), num_most), dtype=np.intp)
    num_kept = 0
    for idx in order:
        # The IoU is at most the ratio of the areas, so only masks of similar areas need to be compared.
        others, area = kept[:num_kept], pool.num_cells[idx]
        areas = pool.num_cells[others]
        close = others[np.minimum(areas, area) > max_iou * np.maximum(areas, area)]
        # Count shared cells in the packed masks; the mask is a duplicate if any IoU exceeds the bound.
        shared = np.bitwise_count(pool.bits[close] & pool.bits[idx]).sum(axis=1, dtype=np.int64)
        if (shared > max_iou * (pool.num_cells[close] + area - shared)).any():
            continue
        kept[num_kept] = idx
        num_kept += 1
        if num_kept == len(kept):
            break
    return pool.taken(kept[:num_kept])


def _regions(pool: _Pool, decoder: PointDecoder, keep: RegionFilter) -> Iterator[MaskWithLogits]:
    """Yield the masks at the image's size, without specks and small holes."""
    frame = decoder.frame
    for idx in range(len(pool.bits)):
        logits = without_specks(pool.logits[idx], decoder.threshold, keep.min_area_px / frame.cell_area_px)
        full = full_size_rle(logits, frame, decoder.threshold)
        if full is not None and full[1] >= keep.min_area_px:
            yield MaskWithLogits(*full, float(pool.predicted_iou[idx]), float(pool.stability[idx]), logits)


def without_specks(logits: NDArray[np.float16], threshold: float, min_cells: float) -> NDArray[np.float16]:
    """Mirror the logits of islands and holes of fewer than `min_cells` cells at the threshold.

    Islands are connected cells of the mask, holes connected cells outside it. The largest of each kind always stays.
    """
    on = logits > threshold
    flips = np.zeros_like(on)
    for side in (on, ~on):
        # Connected components of this side; label 0 is the other side.
        count, labels, stats, _ = cv2.connectedComponentsWithStats(side.astype(np.uint8), connectivity=8)
        areas = stats[:, cv2.CC_STAT_AREA].copy()
        areas[0] = 0
        if count > 2:  # more than one component
            small = (areas < min_cells) & (np.arange(count) != areas.argmax())
            small[0] = False
            flips |= small[labels]
    if not flips.any():
        return logits
    mirrored: NDArray[np.float16] = np.where(flips, np.float16(2 * threshold) - logits, logits)
    return mirrored
