"""Masks as callers have them -> float tensors with values 0 and 1."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor


class BadMask(ValueError):
    """A mask of a wrong rank, with other values than 0 and 1, or that cannot be read."""


def as_mask(mask: Any) -> Tensor:
    """One mask as float32 (H, W) on the CPU.

    Args:
        mask: bool or 0/1 array (numpy, torch or nested lists), or a COCO RLE dict of `size` and `counts`.

    Raises:
        BadMask: see the class; the message says what came.
    """
    if isinstance(mask, dict):
        return _from_rle(mask)
    tensor = (
        mask.detach().cpu() if isinstance(mask, Tensor) else torch.from_numpy(np.require(mask, requirements=("C", "W")))
    )
    if tensor.ndim != 2 or 0 in tensor.shape:
        raise BadMask(f"expected a mask of shape (H, W), got {tuple(tensor.shape)}; pass one mask per entry")
    if tensor.dtype != torch.bool:
        low, high = tensor.min().item(), tensor.max().item()
        if low < 0 or high > 1 or not bool(((tensor == 0) | (tensor == 1)).all()):
            raise BadMask(
                f"expected a mask of 0 and 1 (or bool), got values from {low} to {high}; compare with > 0 first"
            )
    return tensor.float()


def _from_rle(rle: dict[str, Any]) -> Tensor:
    from pycocotools import mask as coco  # needed for RLE only

    if set(rle) != {"size", "counts"}:
        raise BadMask(f"expected a COCO RLE with size and counts, got keys {sorted(rle)}")
    try:
        if isinstance(rle["counts"], list):
            rle = coco.frPyObjects(rle, *rle["size"])
        return torch.from_numpy(np.ascontiguousarray(coco.decode(rle))).float()
    except (TypeError, ValueError) as error:
        raise BadMask(f"the COCO RLE of size {rle['size']} cannot be decoded: {error}") from error
