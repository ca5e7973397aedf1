"""Claims about one step: it reaches every weight, and the fast decoder is SAM's decoder."""

import dataclasses

import numpy as np
import pytest
import torch

from demo.scenes import make_scene
from demo.training.sam.crops import View, object_view
from demo.training.sam.data import training_scene
from demo.training.sam.model import NANO, DenseHead, HalfCopy, decode_prompts, new_sam
from demo.training.sam.step import CROP_PLAN, WHOLE_PLAN, train_step

TINY = dataclasses.replace(
    NANO, encoder_dim=24, encoder_depth=2, global_attention_blocks=(1,), prompt_dim=32, decoder_mlp_dim=32
)


@pytest.fixture(scope="module")
def scenes():
    return [training_scene(make_scene(seed), NANO.image_size) for seed in (0, 1)]


@pytest.mark.parametrize("mask_prompts", [False, True])
def test_decoding_many_prompts_at_once_is_predict_masks(mask_prompts):
    """Broadcasting the image over the prompts changes no number."""
    torch.manual_seed(0)
    sam = new_sam(TINY)
    positions = sam.prompt_encoder.get_dense_pe()
    image, sparse = torch.randn(1, 32, 32, 32), torch.randn(5, 2, 32)
    dense = torch.randn(5, 32, 32, 32) if mask_prompts else torch.randn(1, 32, 1, 1)
    expected = sam.mask_decoder.predict_masks(image, positions, sparse, dense.expand(5, 32, 32, 32))
    for ours, theirs in zip(decode_prompts(sam.mask_decoder, image + dense, positions, sparse), expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_encoding_a_whole_picture_is_the_encoders_forward():
    """On a whole input, the path that can also encode crops equals ImageEncoderViT's forward."""
    torch.manual_seed(0)
    half = HalfCopy(new_sam(TINY))
    pixels = torch.randn(2, 3, 256, 256).bfloat16()
    torch.testing.assert_close(half.encode(pixels, [(0, 0)] * 2), half.encoder(pixels), rtol=0, atol=0)


def test_crops_reach_every_weight(scenes):
    """Over a few seeds (other first masks, so other kinds of corrections) every parameter gets a gradient."""
    reached, names = set(), set()
    for seed in range(6):
        torch.manual_seed(seed)
        sam, head, rng = new_sam(TINY), DenseHead(TINY.prompt_dim), np.random.default_rng(seed)
        crops = [object_view(scene, TINY.patch_size, TINY.window_size, rng) for scene in scenes]
        train_step(sam, HalfCopy(sam), head, crops, CROP_PLAN, rng)
        names = {name for name, _ in sam.named_parameters()}
        reached |= {name for name, p in sam.named_parameters() if p.grad is not None and p.grad.any()}
    assert names - reached == set()


def test_a_whole_picture_is_a_view_too(scenes):
    """A padded picture goes through the same step and gives finite losses and gradients."""
    torch.manual_seed(0)
    sam, head = new_sam(TINY), DenseHead(TINY.prompt_dim)
    report = train_step(sam, HalfCopy(sam), head, [View(scenes[0])], WHOLE_PLAN, np.random.default_rng(0))
    assert np.isfinite([report.mask, report.iou, report.dense]).all()
    assert all(torch.isfinite(parameter.grad).all() for parameter in sam.parameters() if parameter.grad is not None)


def test_a_few_steps_on_one_scene_lower_the_loss(scenes):
    """The gradients that come back from the bfloat16 copies lower the loss."""
    torch.manual_seed(0)
    sam, head = new_sam(TINY), DenseHead(TINY.prompt_dim)
    half = HalfCopy(sam)
    optimizer = torch.optim.Adam([*sam.parameters(), *head.parameters()], lr=3e-3)
    view = object_view(scenes[0], TINY.patch_size, TINY.window_size, np.random.default_rng(0))
    losses = []
    for _ in range(12):
        report = train_step(sam, half, head, [view], CROP_PLAN, np.random.default_rng(0))
        optimizer.step()
        optimizer.zero_grad()
        losses.append(report.mask + report.dense)
    assert losses[-1] < 0.6 * losses[0]
