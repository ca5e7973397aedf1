"""Image tokens: a two-layer MLP maps each res4 cell, row by row, to the decoder's width."""

from __future__ import annotations

from torch import Tensor, nn


class Projector(nn.Sequential):
    """`mlp2x_gelu`: Linear, exact GELU, Linear. The linear layers have the state-dict indices 0 and 2."""

    def __init__(self, vision_dim: int, hidden_size: int) -> None:
        super().__init__(nn.Linear(vision_dim, hidden_size), nn.GELU(), nn.Linear(hidden_size, hidden_size))

    def forward(self, level_BCHW: Tensor) -> Tensor:
        """Return image tokens (B, H*W, D), row by row."""
        tokens_BNC = level_BCHW.flatten(2).transpose(1, 2)
        for layer in self:
            tokens_BNC = layer(tokens_BNC)
        return tokens_BNC  # (B, N, D)
