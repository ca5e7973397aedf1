"""Claims about low-resolution logits to full-size masks: equal to torch's resizing, canonical RLE, little memory."""

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional

from job_queue.mask_codec import decode_mask, encode_mask
from worker.sam.masks import Frame, MaskWithLogits, full_size_rle, stability, without_duplicates


def frame_of(image_hw, side=256, cells=64):
    scale = side / max(image_hw)
    return Frame(image_hw, tuple(max(1, int(extent * scale + 0.5)) for extent in image_hw), side, cells)


def blobs(seed, cells=64):
    noise = np.random.default_rng(seed).normal(size=(cells, cells)).astype(np.float32)
    return cv2.GaussianBlur(noise, (0, 0), 3) * 12 - np.float32(0.5)


@pytest.mark.parametrize("image_hw", [(480, 640), (640, 480), (1080, 1920), (60, 90), (1, 1), (7, 300), (255, 257)])
@pytest.mark.parametrize("seed", range(4))
def test_masks_equal_two_bilinear_resizes(image_hw, seed):
    """The mask is that of Sam.postprocess_masks, except pixels whose logit is zero up to rounding."""
    frame, logits = frame_of(image_hw), blobs(seed)
    square = functional.interpolate(torch.tensor(logits)[None, None], (256, 256), mode="bilinear", align_corners=False)
    cut = square[..., : frame.input_hw[0], : frame.input_hw[1]]
    full = functional.interpolate(cut, image_hw, mode="bilinear", align_corners=False)[0, 0].numpy()
    found = full_size_rle(logits, frame)
    mask = np.zeros(image_hw, bool) if found is None else decode_mask(found[0])
    assert np.abs(full[mask != (full > 0)]).max(initial=0) < 1e-4
    assert (found is None) == (not mask.any())
    if found is not None:
        assert found[1] == mask.sum()
        assert found[0] == encode_mask(mask)


@pytest.mark.parametrize("sign", [1, -1])
def test_all_and_nothing(sign):
    """A full mask is one run, an empty one is None."""
    found = full_size_rle(np.full((64, 64), float(sign), np.float32), frame_of((90, 60)))
    assert found == (None if sign < 0 else (encode_mask(np.ones((90, 60), bool)), 5400))


def test_stability_ignores_the_padding():
    """Cells below the image do not count for a mask's stability; an empty mask is not stable."""
    logits = np.full((64, 64), 0.5, np.float32)
    logits[:32] = 3.0
    frame = frame_of((100, 200))
    assert stability(logits, frame) == 1.0
    assert stability(np.full((64, 64), 0.5, np.float32), frame) == 0.0
    assert stability(np.full((64, 64), -5.0, np.float32), frame) == 0.0


def test_duplicates_keep_the_better_score():
    """Of two masks that nearly agree the one with the higher predicted IoU is kept; a different one is kept too."""
    wide, narrow = np.zeros((10, 10), dtype=bool), np.zeros((10, 10), dtype=bool)
    wide[:5], narrow[0] = True, True
    logits = np.zeros((4, 4), dtype=np.float32)
    worse, better, other = (
        MaskWithLogits.of_mask(m, s, 1.0, logits) for m, s in ((wide, 0.5), (wide.copy(), 0.8), (narrow, 0.1))
    )
    assert without_duplicates([worse, better, other]) == [better, other]
