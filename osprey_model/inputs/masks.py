"""Masks in any form (arrays, nested lists, COCO RLE) -> float tensors with values 0 and 1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class BadMask(ValueError):
    """A mask has a wrong rank or values other than 0 and 1, or it cannot be read."""


class EmptyMask(BadMask):
    """A mask has no pixel, so there is nothing to describe."""


def as_mask(mask: Any) -> Tensor:
    """Convert one mask to float32 (H, W) on the CPU.

    Args:
        mask: bool or 0/1 array (numpy, torch, PIL mode "1" or nested lists), or a COCO RLE dict of `size` and `counts`
            (compressed or not). It covers the whole image, at any resolution.

    Raises:
        EmptyMask: no pixel is set.
        BadMask: see the class; the message describes what was given.
    """
    values = _from_rle(mask) if isinstance(mask, dict) else _from_array(mask)
    if not values.any():
        height, width = values.shape
        raise EmptyMask(f"expected a mask with at least one pixel, got an empty one of {width}x{height}; draw it again")
    return torch.from_numpy(np.array(values, dtype=np.float32, order="C"))


def _from_array(mask: Any) -> NDArray[Any]:
    if isinstance(mask, Tensor):
        tensor = mask.detach().cpu()
        values = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    else:
        try:
            values = np.asarray(mask)
        except ValueError as error:  # nested lists of unequal length
            raise BadMask(f"expected a mask of shape (H, W), got {type(mask).__name__}: {error}") from error
    if values.dtype.kind not in "biuf":
        raise BadMask(f"expected a mask of 0 and 1 (or bool) or a COCO RLE, got {type(mask).__name__} {values.dtype}")
    if values.ndim != 2 or 0 in values.shape:
        raise BadMask(f"expected a mask of shape (H, W), got {values.shape}; pass one mask per entry")
    if not ((values == 0) | (values == 1)).all():
        raise BadMask(
            f"expected a mask of 0 and 1 (or bool), got values from {values.min()} to {values.max()}; "
            "compare with > 0 first"
        )
    return values


def _from_rle(rle: dict[str, Any]) -> NDArray[np.uint8]:
    from pycocotools import mask as coco  # imported here because only RLE needs it

    if not {"size", "counts"} <= rle.keys():
        raise BadMask(f"expected a COCO RLE with size and counts, got keys {sorted(rle)}")
    size, counts = rle["size"], rle["counts"]
    try:
        height, width = (int(side) for side in size)
        if isinstance(counts, list | tuple):
            _check_counts(counts, height, width)
            rle = coco.frPyObjects({"size": [height, width], "counts": list(counts)}, height, width)
        decoded: NDArray[np.uint8] = coco.decode({"size": [height, width], "counts": rle["counts"]})
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise BadMask(f"the COCO RLE of size {size} cannot be decoded: {error}; encode the mask again") from error
    if 0 in decoded.shape:
        raise BadMask(f"expected a mask of shape (H, W), got {decoded.shape} from a COCO RLE")
    return decoded


def _check_counts(counts: Sequence[int], height: int, width: int) -> None:
    if height < 1 or width < 1:
        raise ValueError("expected a height and a width of at least 1")
    if min(counts, default=0) < 0:
        raise ValueError(f"expected counts of 0 or more, got {min(counts)}")
    if sum(counts) != height * width:
        raise ValueError(f"its counts add up to {sum(counts)}, expected {height * width}")
