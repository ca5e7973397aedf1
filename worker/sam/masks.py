"""SAM's low-resolution logits -> masks of the image's size, as COCO RLE. Numpy only.

The full-size mask is never in memory: strips of columns within the mask's bounds are scaled up and turned into runs
one after another. A mask of a 108-megapixel image therefore needs only a few megabytes.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from job_queue.contracts import Rle
from job_queue.mask_codec import decode_mask, encode_mask, encode_runs, joined_runs, run_ends

STABILITY_OFFSET = 1.0  # logits; as segment_anything's automatic mask generator
DUPLICATE_IOU = 0.95
_STRIP_PX = 1 << 18  # pixels scaled up at a time; 1 MB of float32 stays in a core's cache

BoolMask = NDArray[np.bool_]
Logits = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class MaskWithLogits:
    """A mask as SAM's decoder returns it, with the logits from which a later click can refine it.

    In the queue's contract, `job_queue.contracts.MaskCandidate`, the id of the stored logits takes their place.

    Attributes:
        rle: the mask at the image's size.
        area_px: its area in pixels of the image.
        predicted_iou: SAM's own estimate, 0 to 1.
        stability: IoU of the low-resolution mask cut at logit +1 and at -1.
        logits: (h, w) at SAM's low resolution.
    """

    rle: Rle
    area_px: int
    predicted_iou: float
    stability: float
    logits: Logits

    @classmethod
    def of_mask(cls, mask: BoolMask, predicted_iou: float, stability: float, logits: Logits) -> MaskWithLogits:
        """Make one from a bool mask (H, W)."""
        return cls(encode_mask(mask), int(mask.sum()), predicted_iou, stability, logits)

    @property
    def mask(self) -> BoolMask:
        """The bool mask (H, W), decoded at every access, because a thousand of them may not fit in memory."""
        return decode_mask(self.rle)


@dataclass(frozen=True, slots=True)
class Frame:
    """How an image lies in SAM's square of `side` px: it is `input_hw` there. Masks have `cells` x `cells` cells."""

    image_hw: tuple[int, int]
    input_hw: tuple[int, int]
    side: int
    cells: int

    @property
    def valid_hw(self) -> tuple[int, int]:
        """The number of rows and columns of cells that show the image; all others show the padding."""
        height, width = (-(-extent * self.cells // self.side) for extent in self.input_hw)
        return height, width

    @property
    def cell_area_px(self) -> float:
        """Pixels of the image that one cell covers."""
        per_input_px = self.image_hw[0] * self.image_hw[1] / (self.input_hw[0] * self.input_hw[1])
        return per_input_px * (self.side / self.cells) ** 2


def full_size_rle(logits: Logits, frame: Frame, threshold: float = 0.0) -> tuple[Rle, int] | None:
    """Scale the mask of `logits` (cells, cells) to the image; return it with its area in pixels, None if it is empty.

    The result is that of `Sam.postprocess_masks` (bilinear to the square, then to the image) up to float rounding.
    """
    height, width = frame.image_hw
    valid_h, valid_w = frame.valid_hw
    # Bounds of the mask in cells. One cell beyond the image still has weight at its border.
    inside = logits[: valid_h + 1, : valid_w + 1]
    is_on = inside > threshold
    rows, columns = np.flatnonzero(is_on.any(axis=1)), np.flatnonzero(is_on.any(axis=0))
    if not rows.size:
        return None
    # Bounds of the mask in pixels, and the cells that these pixels depend on.
    y0, y1 = _reach(int(rows[0]), int(rows[-1]), frame, axis=0)
    x0, x1 = _reach(int(columns[0]), int(columns[-1]), frame, axis=1)
    values = np.asarray(logits, dtype=np.float32)
    weights_y, weights_x = _weights(frame, 0), _weights(frame, 1)
    r0, r1 = weights_y.cells(y0, y1)
    c0, c1 = weights_x.cells(x0, x1)
    # Scale the columns up. The result (c, H') is transposed, so that pixels lie in the order of COCO RLE.
    tall = np.ascontiguousarray((weights_y.matrix[y0:y1, r0:r1] @ values[r0:r1, c0:c1]).T)
    # Scale the rows up strip by strip and collect where runs begin and end.
    step = max(1, _STRIP_PX // (y1 - y0))
    ends = []
    for start in range(x0, x1, step):
        stop = min(start + step, x1)
        a, b = weights_x.cells(start, stop)
        strip = weights_x.matrix[start:stop, a:b] @ tall[a - c0 : b - c0]  # (W', H')
        ends.append(run_ends(strip > threshold, start * height + y0, height))
    runs = joined_runs(np.concatenate(ends))
    if not runs.size:
        return None
    return encode_runs(runs, (height, width)), int((runs[1::2] - runs[::2]).sum())


def stability(logits: Logits, frame: Frame, threshold: float = 0.0) -> float:
    """Compute the IoU of the mask cut at `threshold` + 1 and - 1, over the cells that show the image; 0 if empty."""
    valid_h, valid_w = frame.valid_hw
    inside = logits[:valid_h, :valid_w]
    outer = int(np.count_nonzero(inside > threshold - STABILITY_OFFSET))
    return int(np.count_nonzero(inside > threshold + STABILITY_OFFSET)) / outer if outer else 0.0


def without_duplicates(candidates: Sequence[MaskWithLogits]) -> list[MaskWithLogits]:
    """Keep, of masks that nearly agree, the one with the best predicted IoU."""
    kept: list[MaskWithLogits] = []
    for candidate in sorted(candidates, key=lambda one: -one.predicted_iou):
        ious = coco_mask.iou([candidate.rle], [other.rle for other in kept], [0] * len(kept)) if kept else []
        if not np.any(np.asarray(ious) > DUPLICATE_IOU):
            kept.append(candidate)
    return kept


@dataclass(frozen=True, slots=True)
class _Weights:
    """Weights of one axis: `matrix` (pixels, cells) scales up. Each row has at most four cells, next to each other."""

    matrix: NDArray[np.float32]
    first: NDArray[np.intp]
    last: NDArray[np.intp]

    def cells(self, start: int, stop: int) -> tuple[int, int]:
        """Return the range of cells that the pixels `start` to `stop` depend on."""
        return int(self.first[start]), int(self.last[stop - 1]) + 1


def _weights(frame: Frame, axis: int) -> _Weights:
    return _axis_weights(frame.cells, frame.side, frame.input_hw[axis], frame.image_hw[axis])


@functools.lru_cache(maxsize=32)
def _axis_weights(cells: int, side: int, extent: int, size: int) -> _Weights:
    """Combine two bilinear steps in one matrix: `cells` -> `side` px, cut at `extent` -> `size` px."""
    to_side = _bilinear(cells, side)[:extent]
    matrix = np.zeros((size, cells), dtype=np.float32)
    below, above, share = _taps(extent, size)
    matrix += (1 - share)[:, None] * to_side[below]
    matrix += share[:, None] * to_side[above]
    used = matrix != 0
    return _Weights(matrix, used.argmax(axis=1), cells - 1 - used[:, ::-1].argmax(axis=1))


def _bilinear(num_in: int, num_out: int) -> NDArray[np.float32]:
    below, above, share = _taps(num_in, num_out)
    matrix = np.zeros((num_out, num_in), dtype=np.float32)
    np.add.at(matrix, (np.arange(num_out), below), 1 - share)
    np.add.at(matrix, (np.arange(num_out), above), share)
    return matrix


def _taps(num_in: int, num_out: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """Return both neighbours of each output position and the share of the second (`align_corners=False`)."""
    at = np.maximum((np.arange(num_out) + 0.5) * (num_in / num_out) - 0.5, 0)
    below = np.minimum(at.astype(np.intp), num_in - 1)
    return below, np.minimum(below + 1, num_in - 1), (at - below).astype(np.float32)


def _reach(first_cell: int, last_cell: int, frame: Frame, axis: int) -> tuple[int, int]:
    """Return the range of pixels on which the cells from `first_cell` to `last_cell` have weight."""
    weights = _weights(frame, axis)
    start = int(np.searchsorted(weights.last, first_cell, side="left"))
    stop = int(np.searchsorted(weights.first, last_cell, side="right"))
    size = frame.image_hw[axis]
    return min(start, size - 1), max(min(stop, size), min(start, size - 1) + 1)
