"""Bool mask <-> COCO RLE, the only form in which a mask crosses the queue (numpy + pycocotools)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from worker.contracts import Rle

BoolMask = NDArray[np.bool_]


def encode_mask(mask: BoolMask) -> Rle:
    """COCO RLE of a bool mask of shape (H, W).

    Raises:
        ValueError: `mask` is not two-dimensional bool.
    """
    if mask.ndim != 2 or mask.dtype != np.bool_:
        raise ValueError(f"expected a bool mask of shape (H, W), got {mask.dtype} of shape {mask.shape}")
    rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(mask.shape[0]), int(mask.shape[1])], "counts": rle["counts"].decode("ascii")}


def encode_runs(runs: NDArray[np.intp], image_hw: tuple[int, int]) -> Rle:
    """COCO RLE from where runs start and end, alternating, counted down the columns; runs do not touch."""
    height, width = image_hw
    counts = np.diff(runs, prepend=0, append=height * width)
    # The canonical form has no empty run at the end.
    counts = counts if counts[-1] else counts[:-1]
    rle = coco_mask.frPyObjects({"size": [height, width], "counts": counts.tolist()}, height, width)
    return {"size": [height, width], "counts": rle["counts"].decode("ascii")}


def decode_mask(rle: Rle) -> BoolMask:
    """The bool mask of shape (H, W) that `encode_mask` was given."""
    decoded = coco_mask.decode({"size": rle["size"], "counts": rle["counts"].encode("ascii")})
    mask: BoolMask = decoded.astype(np.bool_)
    return mask


def mask_bounds_xyxy(rle: Rle) -> tuple[int, int, int, int]:
    """The box around the mask in pixels (x1 and y1 exclusive), without decoding it; all zeros for an empty mask."""
    x, y, width, height = coco_mask.toBbox({"size": rle["size"], "counts": rle["counts"].encode("ascii")})
    return int(x), int(y), int(x + width), int(y + height)
