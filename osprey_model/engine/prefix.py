"""What all questions on an image share: its features and the prefilled opening of the prompt.

The shared opening is system prompt + image tokens + overview line (prefix P of `osprey_model/prompts.py`).
Region placeholders come behind it, so nothing in it depends on a region or a question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from osprey_model.config import IMAGE_TOKEN_ID
from osprey_model.engine.decoder import SharedPrefixDecoder
from osprey_model.engine.kv_cache import PrefixKv
from osprey_model.modeling.mask_extractor import RegionTokens
from osprey_model.modeling.osprey import OspreyForCausalLM
from osprey_model.prompts import INFERENCE, PREFIX_P
from osprey_model.splice import place_regions, splice
from osprey_model.tokenizer import OspreyTokenizer

SHARED_OPENING = INFERENCE.opening() + PREFIX_P


@dataclass(frozen=True, slots=True)
class ImagePrefix:
    """An image, ready to be asked about.

    Attributes:
        levels: res2..res5, each (1, C, h, w).
        token_ids: ids of the opening, -200 for the image.
        kv: keys and values of the opening, `num_image_tokens - 1` positions longer than its ids.
    """

    levels: dict[str, Tensor]
    token_ids: tuple[int, ...]
    kv: PrefixKv
    num_image_tokens: int

    @property
    def num_bytes(self) -> int:
        """Memory of features and keys and values."""
        return self.kv.num_bytes + sum(level.numel() * level.element_size() for level in self.levels.values())

    def shared_with(self, prompts: Sequence[Sequence[int]]) -> int:
        """How many leading ids all prompts share with the opening.

        Tokens can merge across the boundary of opening and question, so this compares ids instead of
        trusting the text.
        """
        shared = len(self.token_ids)
        for prompt in prompts:
            shared = min(shared, len(prompt))
            shared = next((idx for idx in range(shared) if prompt[idx] != self.token_ids[idx]), shared)
        return shared

    def kv_of(self, num_ids: int) -> PrefixKv:
        """Keys and values of the first ids of the opening."""
        has_image = IMAGE_TOKEN_ID in self.token_ids[:num_ids]
        return self.kv.first(num_ids + (self.num_image_tokens - 1 if has_image else 0))


@torch.inference_mode()
def prefill_image(
    model: OspreyForCausalLM, decoder: SharedPrefixDecoder, tokenizer: OspreyTokenizer, image_3SS: Tensor
) -> ImagePrefix:
    """Run tower, projector and decoder over a preprocessed image and the shared opening."""
    levels = model.encode_images(image_3SS[None].to(decoder.device))
    token_ids = tokenizer.encode_prompt(SHARED_OPENING)
    opening = splice(
        torch.tensor([token_ids], device=decoder.device),
        embed=decoder.embed,
        mask_token_id=tokenizer.mask_token_id,
        image_tokens_BND=model.project(levels),
    )
    kv = decoder.prefill(opening.inputs_embeds_BTD[0])
    return ImagePrefix(levels, tuple(token_ids), kv, model.sizes.num_image_tokens)


def embed_suffix(
    decoder: SharedPrefixDecoder, mask_token_id: int, token_ids: Sequence[int], regions: RegionTokens | None
) -> Tensor:
    """Embeddings (S, D) of what follows the prefix, regions put at their placeholders.

    Raises:
        PlaceholderMismatch: `<mask>` placeholders and regions differ in number.
    """
    ids_S = torch.tensor(token_ids, device=decoder.device)
    return place_regions(ids_S, embed=decoder.embed, mask_token_id=mask_token_id, regions=regions)
