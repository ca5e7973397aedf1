"""Bool mask <-> COCO RLE, the only form in which a mask crosses the queue (numpy + pycocotools).

Both directions look only at the mask's columns: a click's mask covers a few percent of its image. Equal to
pycocotools' own codec, which reads and writes every pixel and does so only for masks of noise.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from job_queue.contracts import Rle

BoolMask = NDArray[np.bool_]

_MANY_RUNS = 30_000  # a mask of noise: from here on the COCO tools, which count in C, are faster
# One character of the counts holds five bits, a sign and whether another one follows (COCO's maskApi).
_FIRST_CHARACTER, _BITS, _SIGN, _MORE = 48, 0x1F, 0x10, 0x20


def encode_mask(mask: BoolMask) -> Rle:
    """COCO RLE of a bool mask of shape (H, W).

    Raises:
        ValueError: `mask` is not two-dimensional bool.
    """
    if mask.ndim != 2 or mask.dtype != np.bool_:
        raise ValueError(f"expected a bool mask of shape (H, W), got {mask.dtype} of shape {mask.shape}")
    height, width = mask.shape
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    if not columns.size:
        return encode_runs(np.zeros(0, dtype=np.intp), (height, width))
    x0, x1, y0, y1 = int(columns[0]), int(columns[-1]) + 1, int(rows[0]), int(rows[-1]) + 1
    strip = np.ascontiguousarray(mask[y0:y1, x0:x1].T)
    if np.count_nonzero(strip[:, 1:] != strip[:, :-1]) > _MANY_RUNS:
        rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
        return {"size": [height, width], "counts": rle["counts"].decode("ascii")}
    return encode_runs(joined_runs(run_ends(strip, x0 * height + y0, height)), (height, width))


def run_ends(strip: BoolMask, offset: int, height: int) -> NDArray[np.intp]:
    """Where runs start and end, alternating, in pixels of the image counted down its columns.

    Args:
        strip: a part of the image's mask, (columns, rows).
        offset: the image's pixel at which it begins.
        height: of the image.
    """
    columns, rows = strip.shape
    edges = np.empty((columns, rows + 1), dtype=np.bool_)
    edges[:, 0], edges[:, -1] = strip[:, 0], strip[:, -1]
    np.not_equal(strip[:, 1:], strip[:, :-1], out=edges[:, 1:-1])
    column, row = np.divmod(np.flatnonzero(edges), rows + 1)
    ends: NDArray[np.intp] = offset + column * height + row
    return ends


def joined_runs(ends: NDArray[np.intp]) -> NDArray[np.intp]:
    """`run_ends` with runs made one that go on from the bottom of a column to the top of the next."""
    goes_on = np.flatnonzero(ends[1:-1:2] == ends[2::2])
    return np.delete(ends, np.concatenate([2 * goes_on + 1, 2 * goes_on + 2])) if goes_on.size else ends


def encode_runs(ends: NDArray[np.intp], image_hw: tuple[int, int]) -> Rle:
    """COCO RLE from where runs start and end, alternating, counted down the columns; runs do not touch."""
    height, width = image_hw
    counts = np.diff(ends, prepend=0, append=height * width)
    # The canonical form has no empty run at the end.
    counts = counts if counts[-1] else counts[:-1]
    rle = coco_mask.frPyObjects({"size": [height, width], "counts": counts.tolist()}, height, width)
    return {"size": [height, width], "counts": rle["counts"].decode("ascii")}


def decode_mask(rle: Rle) -> BoolMask:
    """The bool mask of shape (H, W) that `encode_mask` was given.

    Raises:
        ValueError: the counts are not those of a mask of that size.
    """
    height, width = rle["size"]
    if len(rle["counts"]) > _MANY_RUNS:
        decoded = coco_mask.decode({"size": rle["size"], "counts": rle["counts"].encode("ascii")})
        return np.asarray(decoded, dtype=np.bool_)
    mask = np.zeros((height, width), dtype=np.bool_)
    ends = _ends(rle)
    if not ends.size:
        return mask
    x0, x1 = int(ends[0]) // height, -(-int(ends[-1]) // height)
    lengths = np.diff(ends, prepend=x0 * height, append=x1 * height)
    inside = np.repeat(np.arange(lengths.size) % 2 == 1, lengths).reshape(x1 - x0, height)
    rows = np.flatnonzero(inside.any(axis=0))
    if not rows.size:  # runs of no pixel
        return mask
    y0, y1 = int(rows[0]), int(rows[-1]) + 1
    mask[y0:y1, x0:x1] = inside[:, y0:y1].T
    return mask


def mask_bounds_xyxy(rle: Rle) -> tuple[int, int, int, int]:
    """The box around the mask in pixels (x1 and y1 exclusive), without decoding it; all zeros for an empty mask."""
    x, y, width, height = coco_mask.toBbox({"size": rle["size"], "counts": rle["counts"].encode("ascii")})
    return int(x), int(y), int(x + width), int(y + height)


def _ends(rle: Rle) -> NDArray[np.int64]:
    """Where runs start and end, alternating; empty for an empty mask."""
    height, width = rle["size"]
    characters = np.frombuffer(rle["counts"].encode("ascii"), dtype=np.uint8).astype(np.int64) - _FIRST_CHARACTER
    is_last = (characters & _MORE) == 0
    if not characters.size or not is_last[-1] or characters.min() < 0 or characters.max() >= 2 * _MORE:
        raise ValueError(f"expected COCO RLE counts of a mask of {width}x{height} pixels, got {rle['counts'][:40]!r}")
    lasts = np.flatnonzero(is_last)
    firsts = np.concatenate([[0], lasts[:-1] + 1])
    lengths = lasts - firsts + 1
    shifts = 5 * (np.arange(characters.size) - np.repeat(firsts, lengths))
    counts = np.add.reduceat((characters & _BITS) << shifts, firsts)
    counts -= np.where(characters[lasts] & _SIGN, 1 << (5 * lengths), 0)
    # From the fourth on each is the difference to the one before the last.
    counts[1::2] = np.cumsum(counts[1::2])
    counts[2::2] = np.cumsum(counts[2::2])
    ends = np.cumsum(counts)
    if counts.min() < 0 or ends[-1] != height * width:
        raise ValueError(f"COCO RLE counts cover {ends[-1]} pixels, a mask of {width}x{height} has {height * width}")
    # The last run's end is the image's, which is no end when it is one of zeros.
    return ends[:-1] if ends.size % 2 else ends
