"""The mask-aware visual extractor: a mask token and a spatial token per region (paper, same name).

# R regions of one image, H W mask pixels, h w cells of a level, C its channels, E embed width, D decoder width

Mask token: per level, the mean of the cells under the mask goes through a linear layer. The sum of the four results
goes through `feat_linear`. (The paper has an activation behind it; the released code, and so every checkpoint, has
none.)

Spatial token: the raw mask, read at 112x112 (the paper has 224), goes through a three-layer MLP with ReLU.

Everything here is float32, regardless of the dtype of the rest of the model.
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
    """The decoder's input for R regions, and how many cells of each level each mask covered."""

    mask_tokens_RD: Tensor
    position_tokens_RD: Tensor
    covered_cells_RL: Tensor  # (R, 4) in the order of LEVELS; 0: the region vanished at that level
    mask_pixels_R: Tensor  # number of pixels of each mask, in its own resolution

    @property
    def is_empty(self) -> bool:
        """Whether no mask has a pixel."""
        return not bool(self.mask_pixels_R.any())

    @classmethod
    def joined(cls, parts: Sequence[RegionTokens]) -> RegionTokens:
        """Concatenate the regions of several calls."""
        return cls(
            torch.cat([part.mask_tokens_RD for part in parts]),
            torch.cat([part.position_tokens_RD for part in parts]),
            torch.cat([part.covered_cells_RL for part in parts]),
            torch.cat([part.mask_pixels_R for part in parts]),
        )

    def one(self, idx: int) -> RegionTokens:
        """Return the tokens of one region, R = 1."""
        only = slice(idx, idx + 1)
        return RegionTokens(
            self.mask_tokens_RD[only],
            self.position_tokens_RD[only],
            self.covered_cells_RL[only],
            self.mask_pixels_R[only],
        )


class Float32Linear(nn.Linear):
    """A linear layer that computes in float32, also where a sharded training run passes its weights in 16 bit."""

    def forward(self, values: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.float()
        return functional.linear(values.float(), self.weight.float(), bias)


class PositionMlp(nn.Module):
    """Linear layers with ReLU between them, named `layers.0`, `layers.1`, `layers.2`."""

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
        """Compute the tokens of R regions.

        Args:
            levels: res2..res5 of one image, each (1, C, h, w) or (C, h, w).
            masks_RHW: values 0..1 (or bool), of any resolution; it need not be that of the image.
            finer_read: at a level where no sample point hits a region, use every cell that it touches, so that it does
                not vanish there. Off by default, because released checkpoints were trained without it.

        Returns:
            Tokens in float32. An empty mask pools to zeros, so its mask token depends on the biases only.
        """
        with torch.autocast(masks_RHW.device.type, enabled=False):
            masks_R1HW = masks_RHW[:, None].float()
            level_sum_RE: Tensor | None = None
            covered = []
            for name in LEVELS:
                level_CHW = levels[name][0] if levels[name].ndim == 4 else levels[name]
                # 1. Bring the masks to the level's grid.
                cells_Rhw = read_mask(masks_R1HW, level_CHW.shape[-2:], finer_read=finer_read)
                covered.append(cells_Rhw.sum(dim=(-2, -1)))
                # 2. Average the features under each mask.
                pooled_RC = mask_pool(level_CHW, cells_Rhw)
                # 3. Map the level to the common width, and add it to the other levels. Each result is rounded to the
                # features' dtype before the sum, as the reference does in 16 bit.
                embed_RE = self.get_submodule(name)(pooled_RC).to(level_CHW.dtype).float()
                level_sum_RE = embed_RE if level_sum_RE is None else level_sum_RE + embed_RE
            # 4. Map the sum to the decoder's width.
            mask_tokens_RD = self.feat_linear(level_sum_RE)
            return RegionTokens(
                mask_tokens_RD,
                self.position_tokens(masks_R1HW),
                torch.stack(covered, dim=-1).long(),
                (masks_R1HW > 0).sum(dim=(1, 2, 3)),
            )

    def position_tokens(self, masks_R1HW: Tensor) -> Tensor:
        """Compute spatial tokens (R, D) from the raw masks, which are not binarised after the resize."""
        size = (self.mask_shape, self.mask_shape)
        small_R1ss = functional.interpolate(masks_R1HW, size=size, mode="bilinear", align_corners=False)
        return cast(Tensor, self.mask_linear(small_R1ss.flatten(1)))  # (R, D)


def read_mask(masks_R1HW: Tensor, grid_hw: tuple[int, int] | torch.Size, *, finer_read: bool = False) -> Tensor:
    """Return the cells of a grid that each mask covers: float 0/1, (R, h, w).

    Bilinear resampling without antialias reads at most two pixels per axis and cell, so a small region can lie between
    the sample points and cover no cell. With `finer_read` such a region covers every cell that it touches.
    """
    # 1. A mask of the grid's own size needs no resampling.
    if tuple(masks_R1HW.shape[-2:]) == tuple(grid_hw):
        return (masks_R1HW[:, 0] > 0).float()
    # 2. As in the released code: resample, and count every cell above zero.
    grid = (int(grid_hw[0]), int(grid_hw[1]))
    cells_Rhw = functional.interpolate(masks_R1HW, size=grid, mode="bilinear", align_corners=False)[:, 0] > 0
    # 3. For regions that vanished, use the largest mask value in each cell instead.
    if finer_read:
        vanished_R = ~cells_Rhw.flatten(1).any(dim=1)
        touched_Rhw = functional.adaptive_max_pool2d(masks_R1HW, grid)[:, 0] > 0
        cells_Rhw = torch.where(vanished_R[:, None, None], touched_Rhw, cells_Rhw)
    return cells_Rhw.float()


def mask_pool(level_CHW: Tensor, cells_RHW: Tensor) -> Tensor:
    """Return the mean feature under each mask in float32, (R, C); zeros for an empty mask."""
    weights_RN = cells_RHW.flatten(1)
    weights_RN = weights_RN / (weights_RN.sum(dim=1, keepdim=True) + 1e-8)
    return weights_RN @ level_CHW.flatten(1).float().T
