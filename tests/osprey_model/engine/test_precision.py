"""Every call gives the same numbers, in every precision. (The released code changes its precision after the first.)"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from osprey_model.engine.engine import Osprey
from osprey_model.engine.requests import Question
from osprey_model.inputs import prompts
from osprey_model.inputs.preprocess import ImagePreprocessor
from osprey_model.inputs.tokenizer import OspreyTokenizer
from osprey_model.weights.build import load_osprey

QUESTIONS = [
    Question(prompts.CATEGORY, max_new_tokens=6),
    Question(prompts.DETAILED_DESCRIPTION, max_new_tokens=16),
    Question(prompts.CATEGORY, choices=("hat", "lamp")),
]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_every_call_gives_the_same_bits(
    dtype: torch.dtype,
    golden_dir: Path,
    golden_tokenizer: OspreyTokenizer,
    image: Image.Image,
    masks: list[np.ndarray],
) -> None:
    """Answers are equal with empty and filled caches, and after other images, chats and plain forward passes."""
    osprey = Osprey(load_osprey(golden_dir, dtype=dtype), golden_tokenizer, model_version="16 bit")
    ids = torch.tensor([golden_tokenizer.encode_prompt("<image>\nWhat is <mask><pos>?")])
    pixels = ImagePreprocessor(osprey.model.sizes.image_size)(image)[None]

    def forward() -> torch.Tensor:
        with torch.inference_mode():
            return osprey.model(ids, images=pixels, masks=[torch.from_numpy(masks[0])[None]]).logits

    logits, first = forward(), osprey.describe(image, masks, QUESTIONS)
    chat = osprey.chat(image, masks[:1], "What is {region}?", max_new_tokens=8)
    assert logits.isfinite().all()
    assert osprey.describe(image, masks, QUESTIONS) == first
    other = Image.effect_noise((90, 70), 60).convert("RGB")
    osprey.describe(other, masks[1:], QUESTIONS[:1])
    osprey.chat(None, [], "What is a hat?", max_new_tokens=3)
    assert torch.equal(forward(), logits)
    assert osprey.describe(image, masks, QUESTIONS, image_key="encoded once more") == first
    assert osprey.describe(image, masks, QUESTIONS) == first
    assert osprey.chat(image, masks[:1], "What is {region}?", max_new_tokens=8) == chat
    assert {parameter.dtype for parameter in osprey.model.model.parameters()} == {dtype}
