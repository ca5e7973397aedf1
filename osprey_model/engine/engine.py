"""`Osprey`: load a checkpoint, then ask any number of questions about any number of regions of an image.

On the path of one click: `worker/jobs.py` -> here -> `prefix.py` (once per image) -> `decode.py` (one batch).
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from osprey_model.build import load_osprey
from osprey_model.checkpoint import fingerprint
from osprey_model.config import IMAGE_TOKEN_ID
from osprey_model.engine.answers import answer_of, mask_warnings, region_warnings
from osprey_model.engine.choices import ChoiceTrie, ChoiceWalk
from osprey_model.engine.decode import Row, decode_rows
from osprey_model.engine.decoder import SharedPrefixDecoder
from osprey_model.engine.kv_cache import ByteLru
from osprey_model.engine.prefix import SHARED_OPENING, ImagePrefix, embed_suffix, prefill_image
from osprey_model.engine.requests import Answer, Question, RegionRequest, as_requests
from osprey_model.images import as_image
from osprey_model.masks import BadMask, as_mask
from osprey_model.messages import Messages, as_turns
from osprey_model.modeling.mask_extractor import RegionTokens
from osprey_model.modeling.osprey import OspreyForCausalLM
from osprey_model.preprocess import ImagePreprocessor
from osprey_model.prompts import INFERENCE, PREFIX_P, question_message
from osprey_model.splice import PlaceholderMismatch
from osprey_model.tokenizer import IMAGE_TOKEN, OspreyTokenizer

logger = logging.getLogger(__name__)

OnAnswer = Callable[[int, int, Answer], None]

_CACHE_BYTES = {"cpu": 1 << 30, "cuda": 8 << 30}
_MAX_TRIES = 64


class PromptTooLong(ValueError):
    """Prompt and image leave no room for an answer in the decoder's context."""


class Osprey:
    """The model with its tokenizer and caches; answers are greedy and reproducible.

    Not for use from several threads at once.
    """

    def __init__(
        self,
        model: OspreyForCausalLM,
        tokenizer: OspreyTokenizer,
        *,
        model_version: str,
        cache_bytes: int = _CACHE_BYTES["cpu"],
        max_batch_rows: int = 64,
        finer_mask_read: bool = False,
    ) -> None:
        """Wrap a loaded model.

        Args:
            model: in eval mode.
            tokenizer: of the same checkpoint.
            model_version: what answers are attributed to.
            cache_bytes: limit of the kept image prefixes; the newest is always kept.
            max_batch_rows: questions decoded together; more are decoded in turns.
            finer_mask_read: read regions that vanish at a feature level by their exact cover (see
                `MaskExtractor.forward`).

        Raises:
            ValueError: tokenizer and model do not belong together.
        """
        if tokenizer.vocab_size != model.sizes.vocab_size:
            raise ValueError(
                f"the tokenizer has {tokenizer.vocab_size} ids but the model's embedding table has "
                f"{model.sizes.vocab_size} rows; they are of different checkpoints"
            )
        self.model = model
        self.tokenizer = tokenizer
        self.model_version = model_version
        self._decoder = SharedPrefixDecoder(model)
        self._preprocess = ImagePreprocessor(model.sizes.image_size)
        self._prefixes: ByteLru[ImagePrefix] = ByteLru(cache_bytes)
        self._max_batch_rows = max_batch_rows
        self._finer_mask_read = finer_mask_read
        self._tries: dict[tuple[str, ...], ChoiceTrie] = {}

    @classmethod
    def from_pretrained(
        cls,
        path: Path | str,
        device: str = "cpu",
        dtype: torch.dtype | None = None,
        *,
        cache_bytes: int | None = None,
        max_batch_rows: int = 64,
        finer_mask_read: bool = False,
    ) -> Osprey:
        """Load a checkpoint folder, ours or a released one.

        Args:
            path: folder with config.json, weights and tokenizer.
            device: "cpu", "cuda", "cuda:1", or "auto" for a GPU where there is one.
            dtype: None: float32 on the CPU, bfloat16 on a GPU.
            cache_bytes: None: 1 GiB on the CPU, 8 GiB on a GPU.
            max_batch_rows: see the constructor.
            finer_mask_read: see the constructor.

        Raises:
            FileNotFoundError: a file of the folder is missing.
            CheckpointError: the weights do not fit the config.
        """
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        model = load_osprey(path, device=device, dtype=dtype)
        if cache_bytes is None:
            cache_bytes = _CACHE_BYTES.get(torch.device(device).type, _CACHE_BYTES["cpu"])
        return cls(
            model,
            OspreyTokenizer.from_folder(path),
            model_version=f"{Path(path).resolve().name}@{fingerprint(path)[:12]}",
            cache_bytes=cache_bytes,
            max_batch_rows=max_batch_rows,
            finer_mask_read=finer_mask_read,
        )

    def warm(self, image: Any, image_key: str | None = None) -> None:
        """Encode an image and prefill its prefix, so that the first question finds it ready."""
        self._prefix_of(image, image_key)

    @torch.inference_mode()
    def describe(
        self,
        image: Any,
        masks: Sequence[Any],
        questions: Sequence[Question | str] | None = None,
        *,
        max_new_tokens: int = 256,
        image_key: str | None = None,
        on_answer: OnAnswer | None = None,
    ) -> list[list[Answer]]:
        """Answer all questions on all regions of one image.

        Args:
            image: PIL, numpy, torch or a path, see `osprey_model.images.as_image`; masks refer to its pixels as they
                are stored (their resolution may differ).
            masks: one per region (see `osprey_model.masks.as_mask`); or `RegionRequest`s, where regions have
                questions of their own or several masks.
            questions: about every region; strings hold `{region}`. None with `RegionRequest`s.
            max_new_tokens: limit of the answers to questions given as strings.
            image_key: what identifies the image's content; None: its pixels are hashed.
            on_answer: called as (region index, question index, answer) when an answer is ready. Short answers
                come first.

        Returns:
            answers[region][question].

        Raises:
            BadImage: an image that cannot be read.
            BadMask: a mask that cannot be read or is empty (`EmptyMask`); the message names region and mask.
            ValueError: a question that does not fit its form, or a `mask_idx` without a mask.
            PromptTooLong: a prompt that leaves no room for an answer.
        """
        regions = as_requests(masks, questions, max_new_tokens=max_new_tokens)
        asked = [(r, q) for r, region in enumerate(regions) for q in range(len(region.questions))]
        answers: list[list[Answer | None]] = [[None] * len(region.questions) for region in regions]
        if not asked:
            return [[] for _ in regions]
        mask_keys = sorted({(r, regions[r].questions[q].mask_idx) for r, q in asked})
        read_masks = {key: _mask_of(regions, *key) for key in mask_keys}
        prefix = self._prefix_of(image, image_key)
        tokens = self._extract(prefix, read_masks)

        def deliver(region_idx: int, question_idx: int, answer: Answer) -> None:
            answers[region_idx][question_idx] = answer
            if on_answer is not None:
                on_answer(region_idx, question_idx, answer)

        for start in range(0, len(asked), self._max_batch_rows):
            self._answer_batch(prefix, regions, asked[start : start + self._max_batch_rows], tokens, deliver)
        return [[answer for answer in row if answer is not None] for row in answers]

    @torch.inference_mode()
    def chat(
        self,
        image: Any | None,
        masks: Sequence[Any],
        messages: Messages,
        *,
        choices: Sequence[str] = (),
        multiple: bool = False,
        max_new_tokens: int = 512,
        image_key: str | None = None,
    ) -> Answer:
        """Continue a conversation about an image, its regions, or neither.

        Args:
            image: as in `describe`; None for text only.
            masks: one for every `<mask><pos>` (or `{region}`) of the messages, in order of appearance.
            messages: a question, (message, answer) pairs, or dicts of role and content; see
                `osprey_model.messages.as_turns`. With an image, prefix P is put before the first message unless it
                already holds `<image>`.
            choices: not empty: the answer is one of them (several with `multiple`).
            multiple: see `choices`.
            max_new_tokens: limit of a free answer.
            image_key: as in `describe`.

        Raises:
            BadMessages: nothing to answer, or an unknown role.
            BadImage: an image that cannot be read.
            BadMask: a mask that cannot be read or is empty; the message names it.
            PlaceholderMismatch: placeholders and masks differ in number, or masks came without an image.
            PromptTooLong: the conversation leaves no room for an answer.
        """
        (message, answer), *later = as_turns(messages)
        if image is not None and IMAGE_TOKEN not in message:
            message = PREFIX_P + message
        prompt = self.tokenizer.encode_prompt(INFERENCE.prompt([(message, answer), *later]))
        kv, shared, regions = None, 0, None
        if image is not None:
            read_masks = {(0, idx): _read_mask(mask, f"mask {idx}") for idx, mask in enumerate(masks)}
            prefix = self._prefix_of(image, image_key)
            shared = prefix.shared_with([prompt])
            kv = prefix.kv_of(shared)
            if read_masks:
                extracted = self._extract(prefix, read_masks)
                regions = RegionTokens.joined([extracted[0, idx] for idx in range(len(masks))])
        elif len(masks) or IMAGE_TOKEN_ID in prompt:
            raise PlaceholderMismatch("masks or <image> were given without an image; pass the image they belong to")
        if IMAGE_TOKEN_ID in prompt[shared:]:
            raise PlaceholderMismatch("expected one <image>, at the beginning of the first message")
        question = Question("", choices=tuple(choices), multiple=multiple, max_new_tokens=max_new_tokens)
        row = self._row(question, prompt[shared:], regions, 0 if kv is None else kv.length)
        decode_rows(self._decoder, kv, [row], eos_token_id=self.tokenizer.eos_token_id, on_end=lambda _: None)
        warnings = () if regions is None else mask_warnings(regions)
        return answer_of(row, question, self.tokenizer, warnings)

    def _answer_batch(
        self,
        prefix: ImagePrefix,
        regions: Sequence[RegionRequest],
        asked: Sequence[tuple[int, int]],
        tokens: dict[tuple[int, int], RegionTokens],
        deliver: OnAnswer,
    ) -> None:
        questions = [regions[r].questions[q] for r, q in asked]
        prompts = [self._prompt_ids(question) for question in questions]
        shared = prefix.shared_with(prompts)
        kv = prefix.kv_of(shared)
        row_tokens = [tokens[r, question.mask_idx] for (r, _), question in zip(asked, questions, strict=True)]
        rows = [
            self._row(question, prompt[shared:], region, kv.length)
            for question, prompt, region in zip(questions, prompts, row_tokens, strict=True)
        ]

        def finish(idx: int) -> None:
            warnings = region_warnings(row_tokens[idx])
            deliver(*asked[idx], answer_of(rows[idx], questions[idx], self.tokenizer, warnings))

        decode_rows(self._decoder, kv, rows, eos_token_id=self.tokenizer.eos_token_id, on_end=finish)

    def _row(
        self, question: Question, suffix_ids: Sequence[int], regions: RegionTokens | None, prefix_length: int
    ) -> Row:
        walk, limit = None, question.max_new_tokens
        if question.choices:
            trie = self._trie(question.choices)
            walk = ChoiceWalk(trie, multiple=question.multiple)
            limit = max(limit, trie.longest + 1)
        room = self._room(prefix_length + len(suffix_ids), limit if walk is not None else 1)
        suffix_SD = embed_suffix(self._decoder, self.tokenizer.mask_token_id, suffix_ids, regions)
        return Row(suffix_SD, max_new_tokens=min(limit, room), walk=walk)

    def _room(self, prompt_length: int, needed: int) -> int:
        context = self.model.sizes.max_position_embeddings
        if context - prompt_length < needed:
            raise PromptTooLong(
                f"the prompt takes {prompt_length} of {context} positions, which leaves "
                f"{max(context - prompt_length, 0)} where the answer needs {needed}; shorten the question"
            )
        return context - prompt_length

    def _prompt_ids(self, question: Question) -> list[int]:
        message = question_message(question.text, question.form)
        return self.tokenizer.encode_prompt(SHARED_OPENING + INFERENCE.turn(message))

    def _trie(self, choices: tuple[str, ...]) -> ChoiceTrie:
        if choices not in self._tries:
            while len(self._tries) >= _MAX_TRIES:
                self._tries.pop(next(iter(self._tries)))
            self._tries[choices] = ChoiceTrie(choices, self.tokenizer)
        return self._tries[choices]

    def _prefix_of(self, image: Any, image_key: str | None) -> ImagePrefix:
        if image_key is None:
            image = as_image(image)
        key = image_key if image_key is not None else content_key(image)
        prefix = self._prefixes.get(key)
        if prefix is None:
            prefix = prefill_image(self.model, self._decoder, self.tokenizer, self._preprocess(as_image(image)))
            self._prefixes.put(key, prefix)
            logger.debug("prefilled image %s: %d bytes, %d images kept", key, prefix.num_bytes, len(self._prefixes))
        return prefix

    def _extract(
        self, prefix: ImagePrefix, masks: dict[tuple[int, int], torch.Tensor]
    ) -> dict[tuple[int, int], RegionTokens]:
        """Tokens of every mask; masks of one resolution go through the extractor together."""
        by_size: dict[tuple[int, ...], list[tuple[int, int]]] = {}
        for key, mask in masks.items():
            by_size.setdefault(tuple(mask.shape), []).append(key)
        tokens = {}
        for keys in by_size.values():
            stacked_RHW = torch.stack([masks[key] for key in keys]).to(self._decoder.device)
            together = self.model.extract_regions(prefix.levels, stacked_RHW, finer_read=self._finer_mask_read)
            for idx, key in enumerate(keys):
                tokens[key] = together.one(idx)
        return tokens


def content_key(image: Any) -> str:
    """A hash of an image's pixels."""
    pixels = np.asarray(as_image(image))
    return hashlib.blake2b(pixels.tobytes() + str(pixels.shape).encode(), digest_size=20).hexdigest()


def _mask_of(regions: Sequence[RegionRequest], region_idx: int, mask_idx: int) -> torch.Tensor:
    masks = regions[region_idx].masks
    if not 0 <= mask_idx < len(masks):
        raise ValueError(f"region {region_idx} has {len(masks)} masks, but a question asks about mask_idx {mask_idx}")
    return _read_mask(masks[mask_idx], f"region {region_idx}, mask {mask_idx}")


def _read_mask(mask: Any, which: str) -> torch.Tensor:
    try:
        return as_mask(mask)
    except BadMask as error:
        raise type(error)(f"{which}: {error}") from error
