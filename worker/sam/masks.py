"""SAM's low-resolution logits -> masks of the image's size, as COCO RLE and only where the mask is.

Numpy only. A mask is never held at the image's full size while it is made: strips of columns are scaled up and
turned into runs one after another, so a 108-megapixel image costs a few megabytes per mask. Used by
`worker/sam/segmenter.py` and `worker/sam/everything.py`.
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
class Candidate:
    """One mask: `rle` at the image's size, `logits` (h, w) at SAM's low resolution, for a later refinement.

    `predicted_iou` is SAM's own guess in 0..1; `stability` the IoU of the low-resolution mask cut at logit +1 and -1.
    """

    rle: Rle
    area_px: int
    predicted_iou: float
    stability: float
    logits: Logits

    @classmethod
    def of_mask(cls, mask: BoolMask, predicted_iou: float, stability: float, logits: Logits) -> Candidate:
        """A candidate from a bool mask (H, W)."""
        return cls(encode_mask(mask), int(mask.sum()), predicted_iou, stability, logits)

    @property
    def mask(self) -> BoolMask:
        """The bool mask (H, W), decoded anew at every call: a thousand of them may not fit in memory."""
        return decode_mask(self.rle)


@dataclass(frozen=True, slots=True)
class Frame:
    """How an image lies in SAM's square: `input_hw` of `side` px, its masks having `cells` x `cells` cells."""

    image_hw: tuple[int, int]
    input_hw: tuple[int, int]
    side: int
    cells: int

    @property
    def valid_hw(self) -> tuple[int, int]:
        """Cells that show the image; the others show the padding."""
        height, width = (-(-extent * self.cells // self.side) for extent in self.input_hw)
        return height, width

    @property
    def cell_area_px(self) -> float:
        """Pixels of the image that one cell covers."""
        per_input_px = self.image_hw[0] * self.image_hw[1] / (self.input_hw[0] * self.input_hw[1])
        return per_input_px * (self.side / self.cells) ** 2


def full_size_rle(logits: Logits, frame: Frame, threshold: float = 0.0) -> tuple[Rle, int] | None:
    """The mask of `logits` (cells, cells) on the image, with its area in pixels; None when it is empty.

    The same numbers as `Sam.postprocess_masks` (bilinear to the square, then to the image) up to float rounding.
    """
    height, width = frame.image_hw
    valid_h, valid_w = frame.valid_hw
    # One cell beyond the image still weighs in at its border.
    inside = logits[: valid_h + 1, : valid_w + 1]
    is_on = inside > threshold
    rows, columns = np.flatnonzero(is_on.any(axis=1)), np.flatnonzero(is_on.any(axis=0))
    if not rows.size:
        return None
    y0, y1 = _reach(int(rows[0]), int(rows[-1]), frame, axis=0)
    x0, x1 = _reach(int(columns[0]), int(columns[-1]), frame, axis=1)
    values = np.asarray(logits, dtype=np.float32)
    weights_y, weights_x = _weights(frame, 0), _weights(frame, 1)
    r0, r1 = weights_y.cells(y0, y1)
    c0, c1 = weights_x.cells(x0, x1)
    # (c, H'): columns lie in memory one after another, in the order in which COCO RLE counts.
    tall = np.ascontiguousarray((weights_y.matrix[y0:y1, r0:r1] @ values[r0:r1, c0:c1]).T)
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
    """IoU of the mask cut at `threshold` + 1 and - 1, over the cells that show the image; 0 for an empty one."""
    valid_h, valid_w = frame.valid_hw
    inside = logits[:valid_h, :valid_w]
    outer = int(np.count_nonzero(inside > threshold - STABILITY_OFFSET))
    return int(np.count_nonzero(inside > threshold + STABILITY_OFFSET)) / outer if outer else 0.0


def without_duplicates(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Of masks that nearly agree, the one with the best predicted IoU."""
    kept: list[Candidate] = []
    for candidate in sorted(candidates, key=lambda one: -one.predicted_iou):
        ious = coco_mask.iou([candidate.rle], [other.rle for other in kept], [0] * len(kept)) if kept else []
        if not np.any(np.asarray(ious) > DUPLICATE_IOU):
            kept.append(candidate)
    return kept


@dataclass(frozen=True, slots=True)
class _Weights:
    """One axis: `matrix` (pixels, cells) scales up; each row has at most four cells next to each other."""

    matrix: NDArray[np.float32]
    first: NDArray[np.intp]
    last: NDArray[np.intp]

    def cells(self, start: int, stop: int) -> tuple[int, int]:
        """The range of cells that the pixels `start` to `stop` depend on."""
        return int(self.first[start]), int(self.last[stop - 1]) + 1


def _weights(frame: Frame, axis: int) -> _Weights:
    return _axis_weights(frame.cells, frame.side, frame.input_hw[axis], frame.image_hw[axis])


@functools.lru_cache(maxsize=32)
def _axis_weights(cells: int, side: int, extent: int, size: int) -> _Weights:
    """`cells` -> `side` px, cut at `extent` -> `size` px, bilinear both times, as one matrix."""
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
    """Both neighbours of each output position and the share of the second (`align_corners=False`)."""
    at = np.maximum((np.arange(num_out) + 0.5) * (num_in / num_out) - 0.5, 0)
    below = np.minimum(at.astype(np.intp), num_in - 1)
    return below, np.minimum(below + 1, num_in - 1), (at - below).astype(np.float32)


def _reach(first_cell: int, last_cell: int, frame: Frame, axis: int) -> tuple[int, int]:
    """The pixels that the cells from `first_cell` to `last_cell` can turn on: no others have weight on them."""
    weights = _weights(frame, axis)
    start = int(np.searchsorted(weights.last, first_cell, side="left"))
    stop = int(np.searchsorted(weights.first, last_cell, side="right"))
    size = frame.image_hw[axis]
    return min(start, size - 1), max(min(stop, size), min(start, size - 1) + 1)
