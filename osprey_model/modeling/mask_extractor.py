"""The mask-aware visual extractor: a mask token and a spatial token per region (paper, same name).

# R regions of one image, H W mask pixels, h w cells of a level, C its channels, E embed width, D decoder width

Mask token: per level, the mean of the cells under the mask -> Linear; the four results are summed ->
`feat_linear` (the paper writes an activation behind it; the released code, and so every checkpoint, has none).
Spatial token: the raw mask read at 112x112 (the paper says 224) -> three-layer MLP with ReLU.

Everything here is float32, whatever the rest of the model runs in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from osprey_model.config import LEVELS, OspreyConfig


@dataclass(frozen=True, slots=True)
class RegionTokens:
    """What the decoder sees of R regions, and how many cells of each level each mask covered."""

    mask_tokens_RD: Tensor
    position_tokens_RD: Tensor
    covered_cells_RL: Tensor  # (R, 4) in the order of LEVELS; 0 = the region vanished at that level
    mask_pixels_R: Tensor  # how many pixels of its own raster each mask has

    @property
    def is_empty(self) -> bool:
        """No mask has a pixel."""
        return not bool(self.mask_pixels_R.any())

    @classmethod
    def joined(cls, parts: Sequence[RegionTokens]) -> RegionTokens:
        """Regions of several calls as one."""
        return cls(
            torch.cat([part.mask_tokens_RD for part in parts]),
            torch.cat([part.position_tokens_RD for part in parts]),
            torch.cat([part.covered_cells_RL for part in parts]),
            torch.cat([part.mask_pixels_R for part in parts]),
        )

    def one(self, idx: int) -> RegionTokens:
        """The tokens of one region, R = 1."""
        only = slice(idx, idx + 1)
        return RegionTokens(
            self.mask_tokens_RD[only],
            self.position_tokens_RD[only],
            self.covered_cells_RL[only],
            self.mask_pixels_R[only],
        )


class Float32Linear(nn.Linear):
    """Computes in float32 also where a sharded training run hands it its weights in 16 bit."""

    def forward(self, values: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.float()
        return functional.linear(values.float(), self.weight.float(), bias)


class PositionMlp(nn.Module):
    """Linear layers with ReLU between them; names `layers.0`, `layers.1`, `layers.2`."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Float32Linear(a, b) for a, b in pairwise(widths))

    def forward(self, values: Tensor) -> Tensor:
        for idx, layer in enumerate(self.layers):
            values = layer(functional.relu(values) if idx else values)
        return values


class MaskExtractor(nn.Module):
    """Feature levels and masks of one image -> `RegionTokens`."""

    def __init__(self, config: OspreyConfig) -> None:
        super().__init__()
        self.mask_shape = config.mask_shape
        for level, dim in zip(LEVELS, config.vision_dims, strict=True):
            self.add_module(level, Float32Linear(dim, config.mask_embed_dim))
        self.feat_linear = Float32Linear(config.mask_embed_dim, config.hidden_size)
        self.mask_linear = PositionMlp(
            (config.mask_shape**2, config.mask_embed_dim, config.mask_embed_dim, config.hidden_size)
        )

    def forward(self, levels: Mapping[str, Tensor], masks_RHW: Tensor, *, finer_read: bool = False) -> RegionTokens:
        """Tokens of R regions.

        Args:
            levels: res2..res5 of one image, each (1, C, h, w) or (C, h, w).
            masks_RHW: values 0..1 (or bool), any resolution; it need not match the image.
            finer_read: a region that no sample point of a level hits is read by its exact cover instead of
                vanishing there. Off by default: released checkpoints were trained without it.

        Returns:
            Float32 tokens. An empty mask pools to zeros, so its mask token is that of the biases alone.
        """
        with torch.autocast(masks_RHW.device.type, enabled=False):
            masks_R1HW = masks_RHW[:, None].float()
            level_sum_RE: Tensor | None = None
            covered = []
            for name in LEVELS:
                level_CHW = levels[name][0] if levels[name].ndim == 4 else levels[name]
                cells_Rhw = read_mask(masks_R1HW, level_CHW.shape[-2:], finer_read=finer_read)
                covered.append(cells_Rhw.sum(dim=(-2, -1)))
                pooled_RC = mask_pool(level_CHW, cells_Rhw)
                # Rounded to the features' dtype before the sum, as the reference does in 16 bit.
                embed_RE = self.get_submodule(name)(pooled_RC).to(level_CHW.dtype).float()
                level_sum_RE = embed_RE if level_sum_RE is None else level_sum_RE + embed_RE
            mask_tokens_RD = self.feat_linear(level_sum_RE)
            return RegionTokens(
                mask_tokens_RD,
                self.position_tokens(masks_R1HW),
                torch.stack(covered, dim=-1).long(),
                (masks_R1HW > 0).sum(dim=(1, 2, 3)),
            )

    def position_tokens(self, masks_R1HW: Tensor) -> Tensor:
        """Spatial tokens (R, D) of the raw, not binarised masks."""
        size = (self.mask_shape, self.mask_shape)
        small_R1ss = functional.interpolate(masks_R1HW, size=size, mode="bilinear", align_corners=False)
        return cast(Tensor, self.mask_linear(small_R1ss.flatten(1)))  # (R, D)


def read_mask(masks_R1HW: Tensor, grid_hw: tuple[int, int] | torch.Size, *, finer_read: bool = False) -> Tensor:
    """Which cells of a grid a mask covers: float 0/1, (R, h, w).

    Bilinear without antialias reads at most two pixels per axis and cell, so a small region can fall
    between the sample points and cover nothing. With `finer_read` such a region covers every cell it touches.
    """
    if tuple(masks_R1HW.shape[-2:]) == tuple(grid_hw):
        return (masks_R1HW[:, 0] > 0).float()
    grid = (int(grid_hw[0]), int(grid_hw[1]))
    cells_Rhw = functional.interpolate(masks_R1HW, size=grid, mode="bilinear", align_corners=False)[:, 0] > 0
    if finer_read:
        vanished_R = ~cells_Rhw.flatten(1).any(dim=1)
        touched_Rhw = functional.adaptive_max_pool2d(masks_R1HW, grid)[:, 0] > 0
        cells_Rhw = torch.where(vanished_R[:, None, None], touched_Rhw, cells_Rhw)
    return cells_Rhw.float()


def mask_pool(level_CHW: Tensor, cells_RHW: Tensor) -> Tensor:
    """Mean feature under each mask in float32, (R, C). An empty mask gives zeros."""
    weights_RN = cells_RHW.flatten(1)
    weights_RN = weights_RN / (weights_RN.sum(dim=1, keepdim=True) + 1e-8)
    return weights_RN @ level_CHW.flatten(1).float().T
