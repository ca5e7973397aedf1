"""Model, image and questions of the engine benchmark: random weights, a drawn picture, ellipses as masks."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from demo.small_models import OSPREY_NANO
from osprey_model.config import OspreyConfig
from osprey_model.engine.requests import Question, RegionRequest
from osprey_model.inputs import prompts
from osprey_model.inputs.tokenizer import OspreyTokenizer
from osprey_model.modeling.osprey import OspreyForCausalLM
from osprey_model.weights.build import build_osprey

VOCABULARY = OSPREY_NANO / "tokenizer.json"
MASK_HW = (480, 640)

PRESETS = {
    "nano": OspreyConfig.preset("osprey-nano"),
    # ConvNeXt-Tiny at 256 px, LLaMA 512 x 8 with LLaMA's vocabulary size and its ratio of MLP to width.
    "mid": dataclasses.replace(
        OspreyConfig.preset("osprey-nano"),
        vision_depths=(3, 3, 9, 3),
        vision_dims=(96, 192, 384, 768),
        mask_shape=112,
        vocab_size=32_000,
        hidden_size=512,
        intermediate_size=1376,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=8,
        max_position_embeddings=2048,
        mask_token_id=None,  # None: the first ids after the vocabulary
        pos_token_id=None,
    ),
    "7b": OspreyConfig.preset("osprey-7b"),
}
# The product's own questions, in turn.
TEXTS = (
    prompts.CATEGORY,
    prompts.SHORT_DESCRIPTION,
    "What is the color of {region}? Using only one word or phrase.",
    prompts.DETAILED_DESCRIPTION,
)


@dataclass(frozen=True, slots=True)
class Setting:
    """A model with its tokenizer, an image, and the number of tokens of an answer."""

    model: OspreyForCausalLM
    tokenizer: OspreyTokenizer
    image: Image.Image
    new_tokens: int

    def regions(self, num_regions: int, num_questions: int) -> list[RegionRequest]:
        """Return regions of one image with the same questions each; masks are RLEs, as in a project."""
        questions = tuple(
            Question(TEXTS[idx % len(TEXTS)], max_new_tokens=self.new_tokens) for idx in range(num_questions)
        )
        return [RegionRequest((_ellipse(idx),), questions) for idx in range(num_regions)]


def make_setting(preset: str, new_tokens: int, device: str) -> Setting:
    """Make a model with seeded random weights; bfloat16 on a GPU."""
    torch.manual_seed(0)
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    model = build_osprey(PRESETS[preset], device=device, dtype=dtype).eval()
    pixels = np.random.default_rng(0).integers(0, 255, (12, 16, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).resize((640, 480), Image.Resampling.BICUBIC)
    return Setting(model, _tokenizer(PRESETS[preset].vocab_size), image, new_tokens)


def _tokenizer(vocab_size: int) -> OspreyTokenizer:
    """Make osprey-nano's tokenizer, padded with unused pieces to `vocab_size`.

    Its vocabulary contains the questions' words, as LLaMA's does.
    """
    model: dict[str, Any] = json.loads(VOCABULARY.read_text(encoding="utf-8"))["model"]
    vocab = dict(model["vocab"])
    vocab.update({f"\u2581filler{idx}": idx for idx in range(max(vocab.values()) + 1, vocab_size)})
    halves = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
    return OspreyTokenizer(vocab, [(str(left), str(right)) for left, right in halves])


def _ellipse(idx: int) -> dict[str, Any]:
    from pycocotools import mask as coco

    generator = np.random.default_rng(idx)
    height, width = MASK_HW
    y, x = np.ogrid[:height, :width]
    center_y, center_x = generator.uniform(0.15, 0.85, 2) * MASK_HW
    radius_y, radius_x = generator.uniform(0.05, 0.2, 2) * MASK_HW
    inside = ((y - center_y) / radius_y) ** 2 + ((x - center_x) / radius_x) ** 2 < 1
    rle: dict[str, Any] = coco.encode(np.asfortranarray(inside.astype(np.uint8)))
    return rle
