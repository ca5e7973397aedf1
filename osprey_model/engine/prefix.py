"""The image prefix: an image's features and the prefilled beginning of the prompt, which all questions on it share.

# I images encoded together, S image side, D width

The shared opening is the system prompt, the image tokens and the overview line (prefix P of
`osprey_model/inputs/prompts.py`). Region placeholders come behind it, so it depends on no region and no question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from osprey_model.byte_lru import ByteLru, CacheStats
from osprey_model.config import IMAGE_TOKEN_ID
from osprey_model.engine.decoding.decoder import SharedPrefixDecoder
from osprey_model.engine.decoding.kv_cache import PrefixKv
from osprey_model.inputs.images import BadImage, as_image, content_key
from osprey_model.inputs.preprocess import ImagePreprocessor
from osprey_model.inputs.prompts import SHARED_OPENING
from osprey_model.inputs.tokenizer import OspreyTokenizer
from osprey_model.modeling.mask_extractor import RegionTokens
from osprey_model.modeling.osprey import OspreyForCausalLM
from osprey_model.modeling.splice import place_regions, splice

# The first resize keeps the aspect ratio: at 1 : 200 and a short side of 512 it makes 52 million pixels.
_MAX_ASPECT = 200


@dataclass(frozen=True, slots=True, eq=False)
class ImagePrefix:
    """An encoded image with the keys and values of the shared opening.

    Attributes:
        levels: res2..res5, each (1, C, h, w).
        token_ids: ids of the opening; -200 stands for the image.
        kv: keys and values of the opening; `num_image_tokens - 1` positions longer than `token_ids`.
        num_image_tokens: positions that the image takes.
    """

    levels: dict[str, Tensor]
    token_ids: tuple[int, ...]
    kv: PrefixKv
    num_image_tokens: int
    _cut: dict[int, PrefixKv] = field(default_factory=dict)

    @property
    def num_bytes(self) -> int:
        """Memory of features, keys and values in bytes."""
        return self.kv.num_bytes + sum(level.numel() * level.element_size() for level in self.levels.values())

    def kv_of(self, num_ids: int) -> PrefixKv:
        """Return keys and values of the first `num_ids` ids of the opening; the same object for the same number."""
        if num_ids not in self._cut:
            has_image = IMAGE_TOKEN_ID in self.token_ids[:num_ids]
            self._cut[num_ids] = self.kv.first(num_ids + (self.num_image_tokens - 1 if has_image else 0))
        return self._cut[num_ids]


class PrefixStore:
    """Images -> image prefixes, kept in a cache with a limit in bytes."""

    def __init__(
        self, model: OspreyForCausalLM, decoder: SharedPrefixDecoder, tokenizer: OspreyTokenizer, cache_bytes: int
    ) -> None:
        self._model = model
        self._decoder = decoder
        self._mask_token_id = tokenizer.mask_token_id
        self._preprocess = ImagePreprocessor(model.sizes.image_size)
        self._token_ids = tuple(tokenizer.encode_prompt(SHARED_OPENING))
        self._kept: ByteLru[ImagePrefix] = ByteLru(cache_bytes)

    def stats(self) -> CacheStats:
        """Return hits, misses and evictions of the cache, and its current contents."""
        return self._kept.stats()

    def of(self, image: Any, image_key: str | None) -> ImagePrefix:
        """Return the prefix of one image.

        Args:
            image: see `as_image`.
            image_key: identifies the image's content; None: its pixels are hashed.

        Raises:
            BadImage: the image cannot be read.
            FileNotFoundError: there is no file at the path.
        """
        (found,) = self.of_all([(image, image_key)])
        if not isinstance(found, ImagePrefix):
            raise found
        return found

    @torch.inference_mode()
    def of_all(self, images: Sequence[tuple[Any, str | None]]) -> list[ImagePrefix | Exception]:
        """Return the prefix of each (image, image_key), or the error where an image cannot be read.

        Images that are not in the cache go through tower and decoder as one batch.
        """
        found: dict[str, ImagePrefix | Exception] = {}
        new: dict[str, Tensor] = {}
        keys = []
        for idx, (image, image_key) in enumerate(images):
            key = image_key if image_key is not None else f"unreadable {idx}"
            try:
                if image_key is None:
                    image = as_image(image)
                    key = content_key(image)
                if key not in found and key not in new:
                    kept = self._kept.get(key)
                    if kept is None:
                        new[key] = self._pixels(as_image(image))
                    else:
                        found[key] = kept
            except (BadImage, OSError) as error:
                found[key] = error
            keys.append(key)
        if new:
            made = self._make(torch.stack(list(new.values())))
            for key, prefix in zip(new, made, strict=True):
                self._kept.put(key, prefix)
                found[key] = prefix
        return [found[key] for key in keys]

    def _pixels(self, image: Image.Image) -> Tensor:
        width, height = image.size
        if max(width, height) > _MAX_ASPECT * min(width, height):
            raise BadImage(
                f"expected an image at most {_MAX_ASPECT} times as long as wide, got {width}x{height}; crop it"
            )
        return self._preprocess(image)

    def _make(self, images_I3SS: Tensor) -> list[ImagePrefix]:
        levels = self._model.encode_images(images_I3SS.to(self._decoder.device))
        image_tokens_IND = self._model.project(levels)
        num_images = images_I3SS.shape[0]
        opening = splice(
            torch.tensor([self._token_ids] * num_images, device=self._decoder.device),
            embed=self._decoder.embed,
            mask_token_id=self._mask_token_id,
            image_tokens_BND=image_tokens_IND,
        )
        kvs = self._decoder.prefill_prefixes(opening.inputs_embeds_BTD)
        num_tokens = self._model.sizes.num_image_tokens
        # Cloned for the same reason as keys and values: an image in the cache must not keep its whole batch.
        apart = [
            {name: level[idx : idx + 1].clone() if num_images > 1 else level for name, level in levels.items()}
            for idx in range(num_images)
        ]
        return [ImagePrefix(of_one, self._token_ids, kv, num_tokens) for of_one, kv in zip(apart, kvs, strict=True)]


def embed_rows(
    decoder: SharedPrefixDecoder, mask_token_id: int, ids: Sequence[Sequence[int]], regions: RegionTokens | None
) -> tuple[Tensor, ...]:
    """Embed several rows of ids; regions are put at the placeholders in order of appearance over all rows.

    Returns:
        Embeddings (S, D) of each row.

    Raises:
        PlaceholderMismatch: `<mask>` placeholders and regions differ in number.
    """
    flat_N = torch.tensor([token_id for row in ids for token_id in row], device=decoder.device)
    embeds_ND = place_regions(flat_N, embed=decoder.embed, mask_token_id=mask_token_id, regions=regions)
    return torch.split(embeds_ND, [len(row) for row in ids])
