"""The frozen tower's output, computed once: image tokens of every scene, pooled features of every region.

The tower is not trained after stage 0 (as in the reference), so the later stages never run it. Every region is stored
twice: under its true mask, and under a mask like a segmenter's, a little too large or too small with an irregular
outline. Training uses one of them at random.

# N scenes, Q regions of all scenes, V = 2 variants, C channels of all levels, P side of the position mask
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from demo.training.osprey.osprey_scenes import SceneCache, SceneRecord, new_array
from osprey_model.config import IMAGE_LEVEL, LEVELS
from osprey_model.modeling.mask_extractor import mask_pool, read_mask
from osprey_model.modeling.osprey import OspreyForCausalLM

TOKENS_FILE, POOLED_FILE, POSITIONS_FILE = "image_tokens.npy", "pooled.npy", "positions.npy"
DONE_FILE = "done"
VARIANTS = 2
_COARSE = 4  # pixels per cell and side of the grid on which such a mask is drawn


@dataclass(frozen=True, slots=True)
class FeatureCache:
    """Features of the first N scenes of a `SceneCache`. Arrays are memory maps."""

    image_tokens_NTC: NDArray[np.float16]  # res4 cells before the projector
    pooled_QVC: NDArray[np.float16]  # mean features under the mask, res2..res5 side by side
    positions_QVPP: NDArray[np.uint8]  # the mask at the position token's size, 0..255
    first_region: NDArray[np.int64]  # scene -> its first row among Q
    records: tuple[SceneRecord, ...]

    @classmethod
    def open(cls, folder: Path, records: tuple[SceneRecord, ...]) -> FeatureCache:
        """Read a finished folder; `records` are those of the scene cache that it was made from."""
        tokens, pooled, positions = (
            np.load(folder / name, mmap_mode="r") for name in (TOKENS_FILE, POOLED_FILE, POSITIONS_FILE)
        )
        records = records[: len(tokens)]
        counts = [len(record.regions) for record in records]
        return cls(tokens, pooled, positions, np.concatenate([[0], np.cumsum(counts)]), records)


def compute_features(
    folder: Path,
    model: OspreyForCausalLM,
    scenes: SceneCache,
    count: int,
    *,
    precision: torch.dtype = torch.bfloat16,
) -> Iterator[int]:
    """Fill `folder` for the first `count` scenes; yield how many are done. A finished folder stays as it is."""
    if (folder / DONE_FILE).exists():
        yield count
        return
    folder.mkdir(parents=True, exist_ok=True)
    sizes = model.sizes
    num_regions = sum(len(record.regions) for record in scenes.records[:count])
    channels, grid = sum(sizes.vision_dims), (sizes.mask_shape, sizes.mask_shape)
    tokens = new_array(folder / TOKENS_FILE, np.float16, (count, sizes.num_image_tokens, sizes.vision_dims[2]))
    pooled = new_array(folder / POOLED_FILE, np.float16, (num_regions, VARIANTS, channels))
    positions = new_array(folder / POSITIONS_FILE, np.uint8, (num_regions, VARIANTS, *grid))
    generator = torch.Generator().manual_seed(0)
    row, device = 0, next(model.parameters()).device
    for idx in range(count):
        image = torch.from_numpy(scenes.images_N3SS[idx].astype(np.float32))[None].to(device)
        with torch.no_grad(), torch.autocast(device.type, precision, enabled=precision != torch.float32):
            levels = {name: level[0].float().cpu() for name, level in model.encode_images(image).items()}
        tokens[idx] = levels[IMAGE_LEVEL].flatten(1).T.numpy()
        exact = region_masks(scenes.region_maps_NHW[idx], scenes.records[idx])
        for variant, masks in enumerate((exact, waver(exact, generator))):
            rows = slice(row, row + len(masks))
            pooled[rows, variant] = pool_levels(levels, masks).numpy()
            small = functional.interpolate(masks, size=grid, mode="bilinear", align_corners=False)[:, 0]
            positions[rows, variant] = (small * 255).round().byte().numpy()
        row += len(exact)
        yield idx + 1
    (folder / DONE_FILE).touch()


def region_masks(region_map_HW: NDArray[np.uint8], record: SceneRecord) -> Tensor:
    """Return the true masks of all regions of a scene, float (R, 1, H, W)."""
    inside_RA = np.zeros((len(record.regions), 256), np.bool_)
    for idx, region in enumerate(record.regions):
        inside_RA[idx, list(region.leaf_values)] = True
    return torch.from_numpy(inside_RA[:, region_map_HW]).float()[:, None]


def waver(masks_R1HW: Tensor, generator: torch.Generator) -> Tensor:
    """Draw masks as a segmenter might: up to about four pixels off, at a quarter of the resolution.

    A mask that would become empty keeps the cells that it touches.
    """
    # The threshold on the smoothed coverage moves by one random offset per mask and by smooth random bumps.
    share = functional.avg_pool2d(masks_R1HW, _COARSE)
    smooth = functional.avg_pool2d(share, 3, stride=1, padding=1, count_include_pad=False)
    num, _, height, width = share.shape
    offset = torch.rand((num, 1, 1, 1), generator=generator) * 0.5 - 0.25
    bumps = torch.randn((num, 1, height // 6, width // 6), generator=generator) * 0.15
    bumps = functional.interpolate(bumps, size=(height, width), mode="bilinear", align_corners=False)
    drawn = (0.5 * (share + smooth) > (0.5 + offset + bumps).clamp(0.1, 0.9)).float()
    vanished = drawn.flatten(1).sum(1) < 1
    drawn[vanished] = (share[vanished] > 0).float()
    return drawn


def pool_levels(levels: dict[str, Tensor], masks_R1HW: Tensor) -> Tensor:
    """Pool mean features under each mask, res2..res5 side by side (R, C), as the mask extractor does."""
    return torch.cat(
        [mask_pool(levels[name], read_mask(masks_R1HW, levels[name].shape[-2:])) for name in LEVELS], dim=-1
    )
