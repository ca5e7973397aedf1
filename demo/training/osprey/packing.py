"""Many questions on one image in one forward pass: one prefix per image, every question behind it.

System prompt, image tokens and overview line are the same for all questions of an image (about 300 of 330 tokens).
They run through the decoder once. Every question row uses their keys and values, and gradients flow back through
them. The loss equals that of the questions asked one by one.

# B images, T prefix tokens, K question rows, S tokens of the longest row, D decoder width, Q regions in use
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import DynamicCache

from demo.training.osprey.features import VARIANTS, FeatureCache
from demo.training.osprey.osprey_questions import QuestionItem
from osprey_model.config import IGNORE_INDEX, IMAGE_TOKEN_ID, LEVELS
from osprey_model.inputs.prompts import INFERENCE, PREFIX_P
from osprey_model.inputs.tokenizer import OspreyTokenizer
from osprey_model.modeling.osprey import OspreyForCausalLM

_DETAIL_WEIGHT = 0.4  # of a detailed description's tokens before its last sentence; all other tokens weigh 1


class PromptCoder:
    """Encodes questions and answers as ids, split where the shared prefix ends."""

    def __init__(self, tokenizer: OspreyTokenizer) -> None:
        self.tokenizer = tokenizer
        self.prefix_ids: list[int] = tokenizer.encode_prompt(INFERENCE.opening() + PREFIX_P)
        self.question = lru_cache(maxsize=50_000)(self._question)
        self.answer = lru_cache(maxsize=200_000)(self._answer)

    def _question(self, message: str) -> tuple[int, ...]:
        """Encode what follows the prefix, up to and with `ASSISTANT:`."""
        ids = self.tokenizer.encode_prompt(INFERENCE.opening() + PREFIX_P + INFERENCE.turn(message))
        cut = len(self.prefix_ids)
        if ids[:cut] != self.prefix_ids:
            raise ValueError(f"the prefix is not a prefix of the prompt in ids, so it cannot be shared: {message!r}")
        return tuple(ids[cut:])

    def _answer(self, answer: str) -> tuple[int, ...]:
        """Encode an answer with its end token."""
        return (*self.tokenizer.encode(answer, add_bos=False), self.tokenizer.eos_token_id)


@dataclass(frozen=True, slots=True)
class QuestionRows:
    """K questions in padded rows, with the Q regions that they refer to.

    `image_K` is the row's image as an index into the batch; `region_at_Q2` holds (row, column of `<mask>`).
    """

    ids_KS: Tensor
    labels_KS: Tensor
    weights_KS: Tensor
    image_K: Tensor
    lengths_K: Tensor
    region_at_Q2: Tensor
    pooled_QC: Tensor
    positions_QPP: Tensor

    def to(self, device: torch.device | str) -> QuestionRows:
        """Move all tensors to a device."""
        return QuestionRows(*(getattr(self, field.name).to(device) for field in dataclasses.fields(self)))


def pack(
    features: FeatureCache,
    questions: Sequence[tuple[int, QuestionItem]],
    images: Sequence[int],
    coder: PromptCoder,
    generator: np.random.Generator | None,
    *,
    with_answers: bool = True,
) -> QuestionRows:
    """Pack (scene, question) pairs into rows.

    Args:
        features: the features of all regions.
        questions: scene index and question of each row.
        images: the scenes of the batch, in the order of their image tokens.
        coder: encodes questions and answers.
        generator: picks each region's mask variant; None takes the true masks.
        with_answers: False ends the rows after `ASSISTANT:`, for decoding.

    Raises:
        ValueError: the questions' placeholders and regions differ in number.
    """
    ids, labels, weights, region_at, region_rows = [], [], [], [], []
    for row, (scene, item) in enumerate(questions):
        question = coder.question(item.message)
        answer = coder.answer(item.answer) if with_answers else ()
        ids.append([*question, *answer])
        labels.append([*(IGNORE_INDEX for _ in question), *answer])
        weights.append([*(0.0 for _ in question), *_answer_weights(item, answer, coder)])
        region_at += [(row, column) for column, token in enumerate(question) if token == coder.tokenizer.mask_token_id]
        region_rows += [int(features.first_region[scene]) + region for region in item.regions]
    if len(region_at) != len(region_rows):
        raise ValueError(f"{len(region_at)} <mask> placeholders for {len(region_rows)} regions; one each is needed")
    count = len(region_rows)
    chosen = np.zeros(count, np.int64) if generator is None else generator.integers(0, VARIANTS, count)
    return QuestionRows(
        ids_KS=_pad(ids, 0, torch.long),
        labels_KS=_pad(labels, IGNORE_INDEX, torch.long),
        weights_KS=_pad(weights, 0.0, torch.float32),
        image_K=torch.tensor([images.index(scene) for scene, _ in questions]),
        lengths_K=torch.tensor([len(row) for row in ids]),
        region_at_Q2=torch.tensor(region_at, dtype=torch.long).reshape(-1, 2),
        pooled_QC=torch.from_numpy(features.pooled_QVC[region_rows, chosen]).float(),
        positions_QPP=torch.from_numpy(features.positions_QVPP[region_rows, chosen]).float() / 255,
    )


def run_prefix(model: OspreyForCausalLM, coder: PromptCoder, image_tokens_BTC: Tensor) -> DynamicCache:
    """Compute the keys and values of the shared prefix of B images."""
    # The projector reads a level (B, C, h, w). One row of T cells gives the same result.
    images_BTD = model.model.mm_projector(image_tokens_BTC.transpose(1, 2)[:, :, None])
    at = coder.prefix_ids.index(IMAGE_TOKEN_ID)
    device = image_tokens_BTC.device
    before, after = (
        model.model.embed_tokens(torch.tensor(ids, device=device)).to(images_BTD.dtype).expand(len(images_BTD), -1, -1)
        for ids in (coder.prefix_ids[:at], coder.prefix_ids[at + 1 :])
    )
    embeds_BTD = torch.cat([before, images_BTD, after], dim=1)
    return model.model(inputs_embeds=embeds_BTD, use_cache=True).past_key_values


def spread(cache: DynamicCache, image_K: Tensor) -> DynamicCache:
    """Repeat the prefix of each row's image, row by row.

    Rows of one image lie together, in the order of the images.
    """
    counts = torch.bincount(image_K, minlength=len(cache.layers[0].keys)).tolist()

    def repeated(values_BNTD: Tensor) -> Tensor:
        # Not values[image_K], because the gradient of indexing is many times slower than that of an expansion.
        return torch.cat(
            [row.expand(count, -1, -1, -1) for row, count in zip(torch.split(values_BNTD, 1), counts, strict=True)]
        )

    return DynamicCache([(repeated(layer.keys), repeated(layer.values)) for layer in cache.layers])


def embed_rows(model: OspreyForCausalLM, rows: QuestionRows) -> Tensor:
    """Embed question rows as decoder input (K, S, D), with region tokens in their places."""
    embed = model.model.embed_tokens
    # The placeholders' ids lie beyond the embedding table: embed any id there, then overwrite it.
    row_Q, column_Q = rows.region_at_Q2.unbind(1)
    ids_KS = rows.ids_KS.index_put((row_Q, column_Q), torch.zeros_like(row_Q))
    ids_KS = ids_KS.index_put((row_Q, column_Q + 1), torch.zeros_like(row_Q))
    embeds_KSD: Tensor = embed(ids_KS)
    if len(row_Q):
        mask_QD, position_QD = region_tokens(model, rows.pooled_QC, rows.positions_QPP)
        embeds_KSD = embeds_KSD.index_put((row_Q, column_Q), mask_QD.to(embeds_KSD.dtype))
        embeds_KSD = embeds_KSD.index_put((row_Q, column_Q + 1), position_QD.to(embeds_KSD.dtype))
    return embeds_KSD


def region_tokens(model: OspreyForCausalLM, pooled_QC: Tensor, positions_QPP: Tensor) -> tuple[Tensor, Tensor]:
    """Run the mask extractor after its pooling: mask tokens and position tokens, (Q, D) each."""
    extractor = model.mask_extractor
    levels = torch.split(pooled_QC, list(model.sizes.vision_dims), dim=-1)
    level_sum = torch.stack(
        [extractor.get_submodule(name)(level) for name, level in zip(LEVELS, levels, strict=True)]
    ).sum(0)
    return extractor.feat_linear(level_sum), extractor.mask_linear(positions_QPP.flatten(1))


def answer_losses(
    model: OspreyForCausalLM, prefix: DynamicCache, rows: QuestionRows
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute each learned token's cross-entropy, weight, row and whether it was the likeliest; all (L,)."""
    hidden_KSD = model.model(
        inputs_embeds=embed_rows(model, rows), past_key_values=spread(prefix, rows.image_K)
    ).last_hidden_state
    learned_KS = rows.labels_KS[:, 1:] != IGNORE_INDEX
    logits_LV = model.lm_head(hidden_KSD[:, :-1][learned_KS])
    targets_L = rows.labels_KS[:, 1:][learned_KS]
    losses_L = functional.cross_entropy(logits_LV.float(), targets_L, reduction="none")
    return losses_L, rows.weights_KS[:, 1:][learned_KS], learned_KS.nonzero()[:, 0], logits_LV.argmax(-1) == targets_L


def _answer_weights(item: QuestionItem, answer: Sequence[int], coder: PromptCoder) -> list[float]:
    """Weight the tokens of an answer; of a detailed description the last sentence counts most."""
    if not item.kind.startswith("detailed"):
        return [1.0] * len(answer)
    head = item.answer[: item.answer[:-1].rfind(".") + 1]
    common = len(coder.answer(head)) - 1 if head else 0
    return [_DETAIL_WEIGHT if number < common else 1.0 for number in range(len(answer))]


def _pad(rows: Sequence[Sequence[float]], fill: float, dtype: torch.dtype) -> Tensor:
    """Pad rows to the longest one."""
    padded = torch.full((len(rows), max(len(row) for row in rows)), fill, dtype=dtype)
    for number, row in enumerate(rows):
        padded[number, : len(row)] = torch.tensor(row, dtype=dtype)
    return padded
