"""The ConvNeXt CLIP tower: image -> four feature levels (paper, section "Convolutional CLIP Vision Encoder").

# B images, C channels of a level, H W cells of a level

Parameter names are those of a released checkpoint, where open_clip's vision model `visual` lies two levels deep:
`vision_tower.vision_tower.visual.trunk...`. CLIP's own head is loaded with a checkpoint but never run.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import cast

from timm.layers import Mlp
from timm.models.convnext import ConvNeXt
from torch import Tensor, nn

from osprey_model.config import LEVELS, OspreyConfig


class ClipVisual(nn.Module):
    """open_clip's `visual`: the timm trunk and, if the config has one, the unused projection head."""

    def __init__(
        self,
        depths: tuple[int, ...],
        dims: tuple[int, ...],
        layer_scale_init: float,
        clip_embed_dim: int | None,
    ) -> None:
        super().__init__()
        # conv_mlp=False: channels-last linear MLPs, LayerNorm eps 1e-6, exact GELU. The released configuration has a
        # drop path of 0.1; it is left out, because the tower always runs in eval mode.
        self.trunk = ConvNeXt(
            num_classes=0, global_pool="", depths=depths, dims=dims, ls_init_value=layer_scale_init, conv_mlp=False
        )
        if clip_embed_dim is None:
            self.trunk.head = nn.Identity()
        else:
            mlp = Mlp(dims[-1], 2 * clip_embed_dim, clip_embed_dim, bias=(True, False))
            self.head = nn.Sequential(OrderedDict(mlp=mlp))

    def forward(self, images_B3SS: Tensor) -> dict[str, Tensor]:
        """Return the raw stage outputs by level name, without a norm behind them."""
        features = self.trunk.stem(images_B3SS)
        levels = {}
        for name, stage in zip(LEVELS, self.trunk.stages, strict=True):
            features = stage(features)  # (B, C, H, W)
            levels[name] = features
        return levels


class ClipTower(nn.Module):
    """Adds one level to the parameter names, as in a checkpoint: `vision_tower.vision_tower.visual`."""

    def __init__(self, visual: ClipVisual) -> None:
        super().__init__()
        self.visual = visual


class VisionEncoder(nn.Module):
    """Preprocessed images -> {"res2": stride 4, "res3": 8, "res4": 16, "res5": 32}."""

    def __init__(self, config: OspreyConfig) -> None:
        super().__init__()
        self.image_size = config.image_size
        self.vision_tower = ClipTower(
            ClipVisual(
                depths=config.vision_depths,
                dims=config.vision_dims,
                layer_scale_init=config.vision_layer_scale_init,
                clip_embed_dim=config.vision_clip_embed_dim,
            )
        )

    def forward(self, images_B3SS: Tensor) -> dict[str, Tensor]:
        """Return the four levels, each (B, C, H, W), in the dtype of the tower's weights.

        Args:
            images_B3SS: output of `osprey_model.inputs.preprocess`, (B, 3, S, S) with S the config's image_size.

        Raises:
            ValueError: the images have another shape.
        """
        expected = (3, self.image_size, self.image_size)
        if images_B3SS.ndim != 4 or tuple(images_B3SS.shape[1:]) != expected:
            raise ValueError(
                f"expected images of shape (B, {', '.join(map(str, expected))}), got {tuple(images_B3SS.shape)}; "
                "prepare them with osprey_model.inputs.preprocess.ImagePreprocessor"
            )
        dtype = self.vision_tower.visual.trunk.stem[0].weight.dtype
        return cast(dict[str, Tensor], self.vision_tower.visual(images_B3SS.to(dtype)))
