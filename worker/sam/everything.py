"""Every region of an image without a prompt: a grid of points, filters, and of near duplicates the best one.

A part and its whole are both kept: only masks that agree are duplicates. Masks stay at SAM's low resolution until
they have survived; nothing here grows with the image's pixels. Called by `SamSegmenter.everything`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from worker.sam.masks import STABILITY_OFFSET, Candidate, Frame, full_size_rle

MOST_REGIONS = 1000  # per image; the best ones stay
_POOL_BYTES = 256 * 1024**2  # of candidates before duplicates are dropped, however many points there are

# (N, 2) points in pixels of the image -> logits (N, K, h, w), predicted IoUs (N, K), on any device
Decode = Callable[[NDArray[np.float64]], tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True, slots=True)
class RegionFilter:
    """Which masks count as regions. The defaults are those of segment_anything's own generator, where it has one."""

    min_predicted_iou: float = 0.88
    min_stability: float = 0.95
    min_area_px: float = 100.0
    max_area_unit: float = 0.9  # of the image: a mask of nearly everything is no region
    max_iou: float = 0.7  # two masks that agree more than this are one region

    def __post_init__(self) -> None:
        """Refuse what is no threshold.

        Raises:
            ValueError: a share outside 0..1, or a negative area.
        """
        shares = (self.min_predicted_iou, self.min_stability, self.max_area_unit, self.max_iou)
        if not all(0 <= share <= 1 for share in shares) or not self.min_area_px >= 0:
            raise ValueError(f"expected shares of 0 to 1 and an area of at least 0 px, got {self}")


# sam-nano's masks are softer (soft training targets) and its guesses lower: see docs/develop/decisions/segmentation.md.
SMALL_SAM = RegionFilter(min_predicted_iou=0.7, min_stability=0.5)


@dataclass(frozen=True, slots=True)
class _Pool:
    """Candidates that passed the filters. `bits`: their masks over the valid cells, packed, (N, words)."""

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
        """The valid cells that any of the masks covers."""
        valid_h, valid_w = frame.valid_hw
        packed = np.bitwise_or.reduce(self.bits, axis=0).view(np.uint8)
        return np.unpackbits(packed, count=valid_h * valid_w).reshape(valid_h, valid_w).astype(np.bool_)

    def taken(self, idxs: NDArray[np.intp]) -> _Pool:
        return _Pool(
            self.logits[idxs], self.bits[idxs], self.num_cells[idxs], self.predicted_iou[idxs], self.stability[idxs]
        )


@dataclass(frozen=True, slots=True)
class PointGrid:
    """Middles of equal cells of an image, in pixels: (num_y, num_x, 2)."""

    points_px: NDArray[np.float64]

    @classmethod
    def of_image(cls, image_hw: tuple[int, int], points_per_side: int) -> PointGrid:
        """`points_per_side` along the longer side, as dense along the other.

        Raises:
            ValueError: no points per side.
        """
        if points_per_side < 1:
            raise ValueError(f"points_per_side must be at least 1, got {points_per_side}")
        height, width = image_hw
        spacing_px = max(width, height) / points_per_side
        num_x, num_y = max(1, round(width / spacing_px)), max(1, round(height / spacing_px))
        ys, xs = np.mgrid[:num_y, :num_x]
        return cls(np.stack([(xs + 0.5) * width / num_x, (ys + 0.5) * height / num_y], axis=-1))

    def every_second(self) -> NDArray[np.bool_]:
        """Every second point of every second row, (num_y, num_x)."""
        num_y, num_x, _ = self.points_px.shape
        chosen = np.zeros((num_y, num_x), dtype=np.bool_)
        chosen[num_y > 1 :: 2, num_x > 1 :: 2] = True
        return chosen

    def inside(self, covered: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The points on cells of the image that are covered, (num_y, num_x)."""
        num_y, num_x, _ = self.points_px.shape
        rows, columns = (
            ((np.arange(num) + 0.5) * extent / num).astype(np.intp)
            for num, extent in zip((num_y, num_x), covered.shape, strict=True)
        )
        return covered[np.ix_(rows, columns)]


def find_regions(
    decode: Decode,
    frame: Frame,
    grid: PointGrid,
    batch: int,
    keep: RegionFilter,
    max_regions: int | None,
    threshold: float,
) -> list[Candidate]:
    """The regions at the points of `grid`, best first.

    First every second point of every second row; then all points inside of what was found, where parts are. Ground
    on which nothing is found costs a quarter (docs/develop/decisions/segmentation.md).

    Args:
        decode: masks for one point each.
        frame: how the image lies in SAM's square.
        grid: where to ask.
        batch: points decoded together.
        keep: which masks count.
        max_regions: at most so many; None: 1000.
        threshold: the logit above which a cell is in the mask.
    """
    num_most = MOST_REGIONS if max_regions is None else min(max_regions, MOST_REGIONS)
    first = grid.every_second()
    pool = _decoded(decode, grid.points_px[first], None, frame, batch, keep, threshold)
    second = grid.inside(pool.covered(frame)) & ~first
    pool = _decoded(decode, grid.points_px[second], pool, frame, batch, keep, threshold)
    distinct = _distinct(pool, keep.max_iou, MOST_REGIONS)
    return list(itertools.islice(_candidates(distinct, frame, keep, threshold), num_most))


def _decoded(
    decode: Decode,
    points_N2: NDArray[np.float64],
    pool: _Pool | None,
    frame: Frame,
    batch: int,
    keep: RegionFilter,
    threshold: float,
) -> _Pool:
    """`pool` with what is found at the points."""
    pools = [] if pool is None else [pool]
    for start in range(0, len(points_N2), batch):
        logits_NKHW, ious_NK = decode(points_N2[start : start + batch])
        pools.append(_filtered(logits_NKHW.flatten(0, 1), ious_NK.flatten(), frame, keep, threshold))
        if sum(one.num_bytes for one in pools) > _POOL_BYTES:
            pools = [_distinct(_joined(pools), keep.max_iou, MOST_REGIONS)]
    return _joined(pools)


def _filtered(
    logits_NHW: torch.Tensor, ious_N: torch.Tensor, frame: Frame, keep: RegionFilter, threshold: float
) -> _Pool:
    """What passes the filters, taken off the device."""
    ious_N = ious_N.float().clamp(0, 1)
    chosen_N = ious_N >= keep.min_predicted_iou
    logits_NHW, ious_N = logits_NHW[chosen_N].float(), ious_N[chosen_N]
    valid_h, valid_w = frame.valid_hw
    inside_NHW = logits_NHW[:, :valid_h, :valid_w]
    areas_N = (inside_NHW > threshold).sum((1, 2))
    inner_N = (inside_NHW > threshold + STABILITY_OFFSET).sum((1, 2))
    outer_N = (inside_NHW > threshold - STABILITY_OFFSET).sum((1, 2))
    stability_N = inner_N / outer_N.clamp(min=1)
    fits_N = (
        (stability_N >= keep.min_stability)
        & (areas_N > 0)
        & (areas_N * frame.cell_area_px >= keep.min_area_px)
        & (areas_N <= keep.max_area_unit * valid_h * valid_w)
    )
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
    """The best ones, none of which agrees with a better one by more than `max_iou`; best first."""
    # Equal scores keep the order of the points, so that the answer does not depend on the batches.
    order = np.argsort(-pool.score, kind="stable")
    kept = np.empty(min(len(order), num_most), dtype=np.intp)
    num_kept = 0
    for idx in order:
        others, area = kept[:num_kept], pool.num_cells[idx]
        areas = pool.num_cells[others]
        # The IoU is at most the ratio of the areas: parts are never compared with their wholes.
        close = others[np.minimum(areas, area) > max_iou * np.maximum(areas, area)]
        shared = np.bitwise_count(pool.bits[close] & pool.bits[idx]).sum(axis=1, dtype=np.int64)
        if (shared > max_iou * (pool.num_cells[close] + area - shared)).any():
            continue
        kept[num_kept] = idx
        num_kept += 1
        if num_kept == len(kept):
            break
    return pool.taken(kept[:num_kept])


def _candidates(pool: _Pool, frame: Frame, keep: RegionFilter, threshold: float) -> Iterator[Candidate]:
    """The pool at the image's size, without specks and holes, one after another."""
    for idx in range(len(pool.bits)):
        logits = without_specks(pool.logits[idx], threshold, keep.min_area_px / frame.cell_area_px)
        full = full_size_rle(logits, frame, threshold)
        if full is not None and full[1] >= keep.min_area_px:
            yield Candidate(*full, float(pool.predicted_iou[idx]), float(pool.stability[idx]), logits)


def without_specks(logits: NDArray[np.float16], threshold: float, min_cells: float) -> NDArray[np.float16]:
    """The logits with islands and holes of fewer than `min_cells` cells mirrored to the other side of the threshold."""
    on = logits > threshold
    flips = np.zeros_like(on)
    for side in (on, ~on):
        count, labels, stats, _ = cv2.connectedComponentsWithStats(side.astype(np.uint8), connectivity=8)
        areas = stats[:, cv2.CC_STAT_AREA].copy()
        areas[0] = 0  # the other side
        if count > 2:  # the largest one stays whatever its size
            small = (areas < min_cells) & (np.arange(count) != areas.argmax())
            small[0] = False
            flips |= small[labels]
    if not flips.any():
        return logits
    mirrored: NDArray[np.float16] = np.where(flips, np.float16(2 * threshold) - logits, logits)
    return mirrored
