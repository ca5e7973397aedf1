"""The parity tests detect each of nine plausible mistakes: it moves the numbers far beyond the tolerance."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from osprey_model.modeling import mask_extractor
from osprey_model.modeling.osprey import OspreyForCausalLM

ATOL_BEFORE_DECODER = 2e-5
INTERPOLATE, RELU = functional.interpolate, functional.relu


class Functional:
    """torch.nn.functional as the extractor sees it, with one function replaced."""

    def __init__(self, **replaced: Callable[..., Any]) -> None:
        self._replaced = replaced

    def __getattr__(self, name: str) -> Any:
        return self._replaced.get(name) or getattr(functional, name)


def resize_with(**changes: Any) -> Callable[..., Tensor]:
    """`interpolate` with other options, at the levels' grids only or everywhere."""

    def resize(values: Tensor, *, size: tuple[int, int], mode: str, align_corners: bool) -> Tensor:
        options = {"mode": mode, "align_corners": align_corners, **changes}
        if options["mode"] == "nearest":
            del options["align_corners"]
        return INTERPOLATE(values, size=size, **options)

    return resize


def position_mask_only(change: Callable[[Tensor, tuple[int, int]], Tensor], mask_shape: int) -> Callable[..., Tensor]:
    def resize(values: Tensor, *, size: tuple[int, int], mode: str, align_corners: bool) -> Tensor:
        if tuple(size) == (mask_shape, mask_shape):
            return change(values, size)
        return INTERPOLATE(values, size=size, mode=mode, align_corners=align_corners)

    return resize


def antialiased(values: Tensor, size: tuple[int, int]) -> Tensor:
    return INTERPOLATE(values, size=size, mode="bilinear", align_corners=False, antialias=True)


def binarised(values: Tensor, size: tuple[int, int]) -> Tensor:
    return (INTERPOLATE(values, size=size, mode="bilinear", align_corners=False) > 0).float()


def read_with_threshold(threshold: float | None) -> Callable[..., Tensor]:
    def read(masks: Tensor, grid: torch.Size, *, finer_read: bool = False) -> Tensor:
        small = INTERPOLATE(masks, size=tuple(grid), mode="bilinear", align_corners=False)[:, 0]
        return small if threshold is None else (small > threshold).float()

    return read


def averaged_levels(level: Tensor, cells: Tensor, pool: Callable[..., Tensor] = mask_extractor.mask_pool) -> Tensor:
    return pool(level, cells) / len(mask_extractor.LEVELS)


MUTATIONS: dict[str, Callable[[int], dict[str, Any]]] = {
    "threshold 0.5": lambda _: {"read_mask": read_with_threshold(0.5)},
    "no threshold": lambda _: {"read_mask": read_with_threshold(None)},
    "nearest": lambda _: {"functional": Functional(interpolate=resize_with(mode="nearest"))},
    "align_corners": lambda _: {"functional": Functional(interpolate=resize_with(align_corners=True))},
    "antialias": lambda _: {"functional": Functional(interpolate=resize_with(antialias=True))},
    "mean over levels": lambda _: {"mask_pool": averaged_levels},
    "antialias on the position mask": lambda shape: {
        "functional": Functional(interpolate=position_mask_only(antialiased, shape))
    },
    "binarised position mask": lambda shape: {
        "functional": Functional(interpolate=position_mask_only(binarised, shape))
    },
    "GELU in the position MLP": lambda _: {"functional": Functional(relu=functional.gelu)},
}


@torch.inference_mode()
def largest_error(model: OspreyForCausalLM, golden_dir: Path) -> float:
    """Return the largest error of mask and position tokens over all cases."""
    worst = 0.0
    for path in sorted((golden_dir / "cases").glob("*.safetensors")):
        tensors = load_file(path)
        if "sample0.mask_tokens" not in tensors or "image" not in tensors:
            continue
        tokens = model.extract_regions(model.encode_images(tensors["image"]), tensors["masks"])
        for got, name in ((tokens.mask_tokens_RD, "mask_tokens"), (tokens.position_tokens_RD, "pos_tokens")):
            worst = max(worst, (got - tensors[f"sample0.{name}"]).abs().max().item())
    return worst


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_planted_mistake_is_noticed(
    name: str, golden_model: OspreyForCausalLM, golden_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the mistake the numbers are within tolerance, with it at least a hundred times outside."""
    assert largest_error(golden_model, golden_dir) < ATOL_BEFORE_DECODER
    for attribute, replacement in MUTATIONS[name](golden_model.sizes.mask_shape).items():
        monkeypatch.setattr(mask_extractor, attribute, replacement)
    assert largest_error(golden_model, golden_dir) > 100 * ATOL_BEFORE_DECODER
