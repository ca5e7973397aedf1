"""Bool mask <-> COCO RLE, the form in which a mask crosses the queue (numpy and pycocotools).

Both directions process only the part of the image around the mask, because a click's mask covers a few percent of its
image. The results are equal to those of pycocotools' own codec, which processes every pixel; it is used only for masks
with very many runs.

COCO RLE counts pixels down the columns, one column after the other. Its counts are the lengths of the runs of zeros and
ones in turn, beginning with zeros.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from job_queue.contracts import Rle

BoolMask = NDArray[np.bool_]

_MANY_RUNS = 30_000  # a mask of noise: with more runs than this, pycocotools (in C) is faster
# One character of the counts holds five bits; the highest of them is the sign in a count's last character. A sixth bit
# says that another character of the same count follows (`rleToString` of pycocotools' maskApi.c).
_FIRST_CHARACTER, _BITS, _SIGN, _MORE = 48, 0x1F, 0x10, 0x20


def encode_mask(mask: BoolMask) -> Rle:
    """Return the COCO RLE of a bool mask of shape (H, W).

    Raises:
        ValueError: `mask` is not two-dimensional bool.
    """
    if mask.ndim != 2 or mask.dtype != np.bool_:
        raise ValueError(f"expected a bool mask of shape (H, W), got {mask.dtype} of shape {mask.shape}")
    height, width = mask.shape
    # Cut the box around the mask out of the image, and transpose it, so that columns are contiguous.
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
    """Return where runs of ones start and end, alternating, as pixel numbers counted down the image's columns.

    Args:
        strip: a part of the image's mask, transposed, of shape (columns, rows).
        offset: the number of the pixel at which the strip begins.
        height: the height of the image.
    """
    columns, rows = strip.shape
    # An edge is between two different pixels of a column, and at its top and bottom where the pixel is a one.
    edges = np.empty((columns, rows + 1), dtype=np.bool_)
    edges[:, 0], edges[:, -1] = strip[:, 0], strip[:, -1]
    np.not_equal(strip[:, 1:], strip[:, :-1], out=edges[:, 1:-1])
    column, row = np.divmod(np.flatnonzero(edges), rows + 1)
    ends: NDArray[np.intp] = offset + column * height + row
    return ends


def joined_runs(ends: NDArray[np.intp]) -> NDArray[np.intp]:
    """Join each run that ends at the bottom of a column with the one that starts at the top of the next column.

    Args:
        ends: the result of `run_ends`.
    """
    goes_on = np.flatnonzero(ends[1:-1:2] == ends[2::2])
    return np.delete(ends, np.concatenate([2 * goes_on + 1, 2 * goes_on + 2])) if goes_on.size else ends


def encode_runs(ends: NDArray[np.intp], image_hw: tuple[int, int]) -> Rle:
    """Return the COCO RLE of runs.

    Args:
        ends: where runs start and end, alternating, as pixel numbers counted down the columns; no two runs touch.
        image_hw: the size of the image.
    """
    height, width = image_hw
    counts = np.diff(ends, prepend=0, append=height * width)
    # The canonical form has no run of length zero at the end.
    counts = counts if counts[-1] else counts[:-1]
    rle = coco_mask.frPyObjects({"size": [height, width], "counts": counts.tolist()}, height, width)
    return {"size": [height, width], "counts": rle["counts"].decode("ascii")}


def decode_mask(rle: Rle) -> BoolMask:
    """Return the bool mask of shape (H, W) of a COCO RLE.

    Raises:
        ValueError: the counts do not fit a mask of that size.
    """
    height, width = rle["size"]
    if len(rle["counts"]) > _MANY_RUNS:
        decoded = coco_mask.decode({"size": rle["size"], "counts": rle["counts"].encode("ascii")})
        return np.asarray(decoded, dtype=np.bool_)
    mask = np.zeros((height, width), dtype=np.bool_)
    ends = _ends(rle)
    if not ends.size:
        return mask
    # Write the runs into the columns from the first to the last one with ones.
    x0, x1 = int(ends[0]) // height, -(-int(ends[-1]) // height)
    lengths = np.diff(ends, prepend=x0 * height, append=x1 * height)
    inside = np.repeat(np.arange(lengths.size) % 2 == 1, lengths).reshape(x1 - x0, height)
    # Copy only the rows with ones, because the transposed copy is slow.
    rows = np.flatnonzero(inside.any(axis=0))
    if not rows.size:  # all runs have length zero
        return mask
    y0, y1 = int(rows[0]), int(rows[-1]) + 1
    mask[y0:y1, x0:x1] = inside[:, y0:y1].T
    return mask


def mask_bounds_xyxy(rle: Rle) -> tuple[int, int, int, int]:
    """Return the box around a mask in pixels, x1 and y1 exclusive, without decoding it; all zeros for an empty mask."""
    x, y, width, height = coco_mask.toBbox({"size": rle["size"], "counts": rle["counts"].encode("ascii")})
    return int(x), int(y), int(x + width), int(y + height)


def _ends(rle: Rle) -> NDArray[np.int64]:
    """Decode the counts: return where runs of ones start and end, alternating; empty for an empty mask.

    Raises:
        ValueError: the counts do not fit a mask of that size.
    """
    height, width = rle["size"]
    characters = np.frombuffer(rle["counts"].encode("ascii"), dtype=np.uint8).astype(np.int64) - _FIRST_CHARACTER
    is_last = (characters & _MORE) == 0
    if not characters.size or not is_last[-1] or characters.min() < 0 or characters.max() >= 2 * _MORE:
        raise ValueError(f"expected COCO RLE counts of a mask of {width}x{height} pixels, got {rle['counts'][:40]!r}")
    # Combine the characters of each count: five bits each, the lowest first.
    lasts = np.flatnonzero(is_last)
    firsts = np.concatenate([[0], lasts[:-1] + 1])
    lengths = lasts - firsts + 1
    shifts = 5 * (np.arange(characters.size) - np.repeat(firsts, lengths))
    counts = np.add.reduceat((characters & _BITS) << shifts, firsts)
    counts -= np.where(characters[lasts] & _SIGN, 1 << (5 * lengths), 0)
    # From the fourth count on, the difference to the count two places before is stored.
    counts[1::2] = np.cumsum(counts[1::2])
    counts[2::2] = np.cumsum(counts[2::2])
    ends = np.cumsum(counts)
    if counts.min() < 0 or ends[-1] != height * width:
        raise ValueError(f"COCO RLE counts cover {ends[-1]} pixels, a mask of {width}x{height} has {height * width}")
    # The last end is the end of the image. It ends a run of ones only if the number of counts is even.
    return ends[:-1] if ends.size % 2 else ends
