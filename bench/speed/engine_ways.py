"""Four ways to answer the same questions on one image, each from pixels to texts.

plain        as the released code: every question encodes the image again and prefills the whole prompt
batched      whole prompts in batches of 16: the image is encoded once, its prefix is prefilled for every question
one_by_one   `Osprey` with one row: the prefix is shared, questions are answered one after another
shared       `Osprey`: the prefix is shared, all questions are in one batch
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from bench.speed.engine_setting import Setting
from osprey_model.engine.engine import Osprey
from osprey_model.engine.requests import RegionRequest
from osprey_model.inputs import prompts
from osprey_model.inputs.masks import as_mask
from osprey_model.inputs.preprocess import ImagePreprocessor
from osprey_model.modeling.splice import splice

Texts = list[str]
Way = Callable[[Sequence[RegionRequest]], Texts]

_BATCH = 16


def ways_of(setting: Setting) -> dict[str, Way]:
    """Return the ways by name. The models are loaded, no image is cached."""
    return {
        "plain": lambda regions: plain(setting, regions),
        "batched": lambda regions: batched(setting, regions),
        "one_by_one": shared(setting, max_batch_rows=1),
        "shared": shared(setting),
    }


@torch.inference_mode()
def plain(setting: Setting, regions: Sequence[RegionRequest]) -> Texts:
    """Call `generate` once per question."""
    model, texts = setting.model, []
    preprocess = ImagePreprocessor(model.sizes.image_size)
    for region in regions:
        for question in region.questions:
            ids = torch.tensor([_prompt(setting, question.text)], device=model.device)
            pixels = preprocess(setting.image)[None].to(model.device)
            batch = model.embed_batch(ids, pixels, [as_mask(region.masks[0])[None].to(model.device)])
            texts += _generate(setting, batch.inputs_embeds_BTD, batch.attention_mask_BT)
    return texts


@torch.inference_mode()
def batched(setting: Setting, regions: Sequence[RegionRequest]) -> Texts:
    """Generate whole prompts in batches, padded on the left."""
    model, texts = setting.model, []
    levels = model.encode_images(ImagePreprocessor(model.sizes.image_size)(setting.image)[None].to(model.device))
    image_tokens = model.project(levels)
    asked = [(region, question) for region in regions for question in region.questions]
    for start in range(0, len(asked), _BATCH):
        rows = []
        for region, question in asked[start : start + _BATCH]:
            spliced = splice(
                torch.tensor([_prompt(setting, question.text)], device=model.device),
                embed=model.model.embed_tokens,
                mask_token_id=setting.tokenizer.mask_token_id,
                image_tokens_BND=image_tokens,
                regions=[model.extract_regions(levels, as_mask(region.masks[0])[None].to(model.device))],
            )
            rows.append(spliced.inputs_embeds_BTD[0])
        longest = max(len(row) for row in rows)
        embeds = torch.stack([torch.nn.functional.pad(row, (0, 0, longest - len(row), 0)) for row in rows])
        seen = torch.stack([torch.arange(longest, device=model.device) >= longest - len(row) for row in rows])
        texts += _generate(setting, embeds, seen.long())
    return texts


def shared(setting: Setting, max_batch_rows: int = 96) -> Way:
    """Return a way that calls `Osprey.describe` on an image that is not cached."""
    osprey = Osprey(
        setting.model, setting.tokenizer, model_version="bench", cache_bytes=0, max_batch_rows=max_batch_rows
    )
    unseen = itertools.count()

    def way(regions: Sequence[RegionRequest]) -> Texts:
        answers = osprey.describe(setting.image, regions, image_key=f"call {next(unseen)}")
        return [answer.text for row in answers for answer in row]

    return way


def _prompt(setting: Setting, text: str) -> list[int]:
    message = prompts.PREFIX_P + prompts.question_message(text, "region")
    return setting.tokenizer.encode_prompt(prompts.INFERENCE.prompt([(message, None)]))


def _generate(setting: Setting, embeds_BTD: Tensor, seen_BT: Tensor) -> Texts:
    sequences = setting.model.generate(
        inputs_embeds=embeds_BTD, attention_mask=seen_BT, max_new_tokens=setting.new_tokens, do_sample=False
    )
    eos = setting.tokenizer.eos_token_id
    texts = []
    for ids in sequences.tolist():
        ids = ids[: ids.index(eos)] if eos in ids else ids
        texts.append(prompts.drop_repeats(prompts.clean(setting.tokenizer.decode(ids))))
    return texts
