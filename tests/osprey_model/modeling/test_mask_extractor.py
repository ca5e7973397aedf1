"""Masks are read at the grids of the tower, where small regions may vanish."""

from __future__ import annotations

import torch

from osprey_model.config import LEVELS, OspreyConfig
from osprey_model.modeling.mask_extractor import MaskExtractor, mask_pool, read_mask


def levels_of(config: OspreyConfig) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    sides = [config.image_size // stride for stride in (4, 8, 16, 32)]
    return {
        name: torch.randn(1, dim, side, side) for name, dim, side in zip(LEVELS, config.vision_dims, sides, strict=True)
    }


def test_pooling_is_the_mean_under_the_mask() -> None:
    """Cells that are not covered have no weight; an empty mask gives zeros, not NaN."""
    level = torch.arange(8.0).view(2, 2, 2)
    cells = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]]])
    assert mask_pool(level, cells).tolist() == [[1.5, 5.5], [0.0, 0.0]]


def test_a_speck_between_sample_points_vanishes_unless_read_finely() -> None:
    """By default a speck vanishes, as in the released models; the finer read finds its cell only."""
    masks = torch.zeros(2, 1, 512, 512)
    masks[0, 0, 240:242, 260:262] = 1
    masks[1, 0, 64:320, 64:320] = 1
    plain, finer = read_mask(masks, (16, 16)), read_mask(masks, (16, 16), finer_read=True)
    assert plain.sum(dim=(1, 2)).tolist() == [0, 64]
    assert finer[0].nonzero().tolist() == [[7, 8]]
    assert torch.equal(plain[1], finer[1])


def test_an_empty_mask_gives_the_biases_alone(tiny_config: OspreyConfig) -> None:
    """The mask token of an empty region does not depend on the image."""
    extractor = MaskExtractor(tiny_config)
    empty = torch.zeros(1, 20, 30)
    levels = levels_of(tiny_config)
    other = {name: level + 1 for name, level in levels.items()}
    torch.testing.assert_close(extractor(levels, empty).mask_tokens_RD, extractor(other, empty).mask_tokens_RD)
    assert extractor(levels, empty).is_empty


def test_float32_inside_whatever_the_features_are(tiny_config: OspreyConfig) -> None:
    """bfloat16 features under autocast give float32 tokens, close to those of float32 features."""
    extractor = MaskExtractor(tiny_config)
    levels = levels_of(tiny_config)
    masks = torch.zeros(1, 64, 64, dtype=torch.bool)
    masks[0, 10:40, 10:40] = True
    expected = extractor(levels, masks)
    with torch.autocast("cpu", torch.bfloat16):
        got = extractor({name: level.bfloat16() for name, level in levels.items()}, masks)
    assert got.mask_tokens_RD.dtype == torch.float32
    torch.testing.assert_close(got.mask_tokens_RD, expected.mask_tokens_RD, atol=0.05, rtol=0.05)
    torch.testing.assert_close(got.position_tokens_RD, expected.position_tokens_RD)


def test_each_region_is_read_by_itself(tiny_config: OspreyConfig) -> None:
    """The tokens of a region do not depend on the other regions of the call."""
    extractor = MaskExtractor(tiny_config)
    levels = levels_of(tiny_config)
    masks = torch.rand(3, 50, 70) > 0.7
    together = extractor(levels, masks)
    for idx in range(3):
        alone = extractor(levels, masks[idx : idx + 1])
        torch.testing.assert_close(alone.mask_tokens_RD, together.one(idx).mask_tokens_RD)
        torch.testing.assert_close(alone.position_tokens_RD, together.one(idx).position_tokens_RD)
        assert torch.equal(alone.covered_cells_RL, together.one(idx).covered_cells_RL)
