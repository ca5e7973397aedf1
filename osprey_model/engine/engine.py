"""`Osprey`: load a checkpoint, then ask any number of questions about any number of regions of images.

It wires the parts together: `prefix.py` runs once per image, `regions.py` once per mask, and the scheduler decodes the
answers to all questions as one batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from osprey_model.byte_lru import CacheStats
from osprey_model.config import IMAGE_TOKEN_ID
from osprey_model.engine.answers import answer_of
from osprey_model.engine.decoding.choices import as_choices
from osprey_model.engine.decoding.decoder import SharedPrefixDecoder
from osprey_model.engine.decoding.rows import Row
from osprey_model.engine.decoding.static_step import StaticStep
from osprey_model.engine.prefix import PrefixStore, embed_rows
from osprey_model.engine.prompt_plan import Planner, shared_length
from osprey_model.engine.regions import RegionReader, mask_warnings
from osprey_model.engine.requests import Answer, Failure, ImageRequest, Question, as_requests
from osprey_model.engine.running_batch import Budget, Entry, RunningBatch
from osprey_model.engine.scheduler import Scheduler, SchedulerParts
from osprey_model.inputs.messages import Messages, as_turns
from osprey_model.inputs.prompts import INFERENCE, PREFIX_P
from osprey_model.inputs.tokenizer import IMAGE_TOKEN, OspreyTokenizer
from osprey_model.modeling.mask_extractor import RegionTokens
from osprey_model.modeling.osprey import OspreyForCausalLM
from osprey_model.modeling.splice import PlaceholderMismatch
from osprey_model.weights.adapter import adapter_fingerprint, merge_adapter
from osprey_model.weights.build import load_osprey
from osprey_model.weights.checkpoint import fingerprint
from osprey_model.weights.quantize import Bits, quantize_decoder

OnAnswer = Callable[[int, int, Answer], None]
OnImageAnswer = Callable[[int, int, int, Answer], None]

_CACHE_BYTES = {"cpu": 1 << 30, "cuda": 8 << 30}


class Osprey:
    """A model with its tokenizer and caches. Decoding is greedy, so answers are reproducible. Not thread-safe."""

    def __init__(
        self,
        model: OspreyForCausalLM,
        tokenizer: OspreyTokenizer,
        *,
        model_version: str,
        cache_bytes: int = _CACHE_BYTES["cpu"],
        max_batch_rows: int = 96,
        max_batch_positions: int = 8192,
        finer_mask_read: bool = False,
    ) -> None:
        """Wrap a loaded model.

        Args:
            model: in eval mode.
            tokenizer: of the same checkpoint.
            model_version: name that callers store with the answers.
            cache_bytes: limit of the kept image prefixes; the newest is always kept.
            max_batch_rows: most questions that are decoded together; waiting ones take the slots of those that end.
            max_batch_positions: limit of rows times the longest row's positions behind its prefix, which bounds memory.
            finer_mask_read: read a region that vanishes at a feature level by every cell it touches (see
                `MaskExtractor.forward`).

        Raises:
            ValueError: tokenizer and model are of different checkpoints.
        """
        if tokenizer.vocab_size != model.sizes.vocab_size:
            raise ValueError(
                f"the tokenizer has {tokenizer.vocab_size} ids but the model's embedding table has "
                f"{model.sizes.vocab_size} rows; they are of different checkpoints"
            )
        self.model = model
        self.tokenizer = tokenizer
        self.model_version = model_version
        sizes = model.sizes
        self._decoder = SharedPrefixDecoder(model)
        self._prefixes = PrefixStore(model, self._decoder, tokenizer, cache_bytes)
        self._reader = RegionReader(model, self._decoder.device, finer_mask_read=finer_mask_read)
        self._budget = Budget(rows=max_batch_rows, positions=max_batch_positions)
        self._parts = SchedulerParts(
            decoder=self._decoder,
            tokenizer=tokenizer,
            planner=Planner(tokenizer, num_image_tokens=sizes.num_image_tokens, context=sizes.max_position_embeddings),
            prefixes=self._prefixes,
            reader=self._reader,
            static=self._static_step,
        )
        self._own_scheduler = Scheduler(self._parts, self._budget)

    @classmethod
    def from_pretrained(
        cls,
        path: Path | str,
        device: str = "cpu",
        dtype: torch.dtype | str | None = None,
        *,
        adapter: Path | str | None = None,
        cache_bytes: int | None = None,
        max_batch_rows: int = 96,
        max_batch_positions: int = 8192,
        finer_mask_read: bool = False,
        load_in: Bits | None = None,
        map_weights: bool = False,
    ) -> Osprey:
        """Load a checkpoint folder, ours or a released one.

        Args:
            path: folder with config.json, weights and tokenizer.
            device: "cpu", "cuda", "cuda:1", or "auto" for a GPU if there is one.
            dtype: a torch dtype or its name; None: float32 on the CPU, bfloat16 on a GPU.
            adapter: folder of a LoRA adapter; it is merged into the weights.
            cache_bytes: see the constructor; None: 1 GiB on the CPU, 8 GiB on a GPU.
            max_batch_rows: see the constructor.
            max_batch_positions: see the constructor.
            finer_mask_read: see the constructor.
            load_in: "4bit" or "8bit" for the decoder's linear layers, needs bitsandbytes; the rest has `dtype`.
            map_weights: see `osprey_model.weights.build.load_osprey`.

        Raises:
            FileNotFoundError: a file of the folder is missing.
            CheckpointError: the weights do not fit the config.
            AdapterMismatch: the adapter was trained on a model of other sizes.
            TokenizerError: the tokenizer is damaged or of another kind.
            QuantizationUnavailable: `load_in` without bitsandbytes.
        """
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        early = load_in if adapter is None else None  # an adapter is merged before the weights are quantised
        model = load_osprey(
            path, device=device, dtype=dtype, load_in=early, map_weights=map_weights and adapter is None
        )
        version = f"{Path(path).resolve().name}@{fingerprint(path)[:12]}"
        if adapter is not None:
            model = merge_adapter(model, adapter, base=path)
            version += f"+{Path(adapter).resolve().name}@{adapter_fingerprint(adapter)[:12]}"
            if load_in is not None:
                quantize_decoder(model, load_in, device=device)
        if cache_bytes is None:
            cache_bytes = _CACHE_BYTES.get(torch.device(device).type, _CACHE_BYTES["cpu"])
        return cls(
            model,
            OspreyTokenizer.from_folder(path),
            model_version=version,
            cache_bytes=cache_bytes,
            max_batch_rows=max_batch_rows,
            max_batch_positions=max_batch_positions,
            finer_mask_read=finer_mask_read,
        )

    def warm(self, image: Any, image_key: str | None = None) -> None:
        """Encode an image and prefill its prefix, so that the first question on it is answered sooner."""
        self._prefixes.of(image, image_key)

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
            image: PIL image, numpy array, torch tensor or path, see `osprey_model.inputs.images.as_image`. Masks
                refer to its pixels as stored; their resolution may differ.
            masks: one per region (see `osprey_model.inputs.masks.as_mask`). Or `RegionRequest`s, if regions have
                questions of their own or several masks.
            questions: asked about every region; strings contain `{region}`. None with `RegionRequest`s.
            max_new_tokens: limit of the answers to questions given as strings.
            image_key: identifies the image's content; None: its pixels are hashed.
            on_answer: called as (region index, question index, answer) when an answer is ready. Short answers
                are ready first.

        Returns:
            answers[region][question].

        Raises:
            BadImage: an image that cannot be read.
            BadMask: a mask that cannot be read or is empty (`EmptyMask`); the message names region and mask.
            BadQuestion: a question that does not fit its form, or a `mask_idx` without a mask.
            BadChoices: an invalid list of choices.
            PromptTooLong: a prompt that leaves no room for an answer.
        """
        regions = as_requests(masks, questions, max_new_tokens=max_new_tokens)

        def deliver(_image_idx: int, region_idx: int, question_idx: int, result: Answer | Failure) -> None:
            if isinstance(result, Failure):
                raise result.error
            if on_answer is not None:
                on_answer(region_idx, question_idx, result)

        (answers,) = self._answer([ImageRequest(image, tuple(regions), image_key)], deliver)
        return [[one for one in row if isinstance(one, Answer)] for row in answers]

    def describe_many(
        self, requests: Sequence[ImageRequest], on_answer: OnImageAnswer | None = None
    ) -> list[list[list[Answer | Failure]]]:
        """Answer all questions on all regions of several images, as many at the same time as the budget allows.

        Args:
            requests: images with their regions.
            on_answer: called as (image index, region index, question index, answer) when an answer is ready.

        Returns:
            answers[image][region][question]. Where an image, a mask or a question is bad, a `Failure` stands in place
            of each answer concerned; the other questions are answered.
        """

        def deliver(image_idx: int, region_idx: int, question_idx: int, result: Answer | Failure) -> None:
            if on_answer is not None and isinstance(result, Answer):
                on_answer(image_idx, region_idx, question_idx, result)

        return self._answer(requests, deliver)

    def scheduler(self) -> Scheduler:
        """Create a scheduler, for callers that add requests while others are being answered."""
        return Scheduler(self._parts, self._budget)

    def cache_stats(self) -> CacheStats:
        """Return hits, misses and evictions of the cache of image prefixes, and its current contents."""
        return self._prefixes.stats()

    def _answer(
        self,
        requests: Sequence[ImageRequest],
        deliver: Callable[[int, int, int, Answer | Failure], None],
    ) -> list[list[list[Answer | Failure]]]:
        results: list[dict[tuple[int, int], Answer | Failure]] = [{} for _ in requests]

        def collect(image_idx: int, region_idx: int, question_idx: int, result: Answer | Failure) -> None:
            results[image_idx][region_idx, question_idx] = result
            deliver(image_idx, region_idx, question_idx, result)

        scheduler = self._own_scheduler
        jobs = [scheduler.add(request, partial(collect, image_idx)) for image_idx, request in enumerate(requests)]
        try:
            while not scheduler.is_idle:
                scheduler.step()
        finally:  # also when a callback raises: the next call must not find these jobs
            for job in jobs:
                scheduler.cancel(job)
        return [
            [[of_image[r, q] for q in range(len(region.questions))] for r, region in enumerate(request.regions)]
            for request, of_image in zip(requests, results, strict=True)
        ]

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
        """Answer the last message of a conversation about an image and its regions, an image, or text only.

        Args:
            image: as in `describe`; None for text only.
            masks: one per `<mask><pos>` (or `{region}`) of the messages, in order of appearance.
            messages: a question, (message, answer) pairs, or dicts of role and content; see
                `osprey_model.inputs.messages.as_turns`. With an image, prefix P is put before the first message
                unless that message contains `<image>`.
            choices: if not empty, the answer is one of them.
            multiple: the answer may be several of `choices`.
            max_new_tokens: limit of a free answer.
            image_key: as in `describe`.

        Raises:
            BadMessages: there is no message to answer, or a role is unknown.
            BadChoices: an invalid list of choices.
            BadImage: an image that cannot be read.
            BadMask: a mask that cannot be read or is empty; the message names it.
            PlaceholderMismatch: placeholders and masks differ in number, or masks were given without an image.
            PromptTooLong: the conversation leaves no room for an answer.
        """
        (message, answer), *later = as_turns(messages)
        if image is not None and IMAGE_TOKEN not in message:
            message = PREFIX_P + message
        prompt = self.tokenizer.encode_prompt(INFERENCE.prompt([(message, answer), *later]))
        kv, shared, regions = None, 0, None
        if image is not None:
            prefix = self._prefixes.of(image, image_key)
            shared = shared_length(prefix.token_ids, prompt)
            kv = prefix.kv_of(shared)
            if len(masks):
                encoded = self._reader.read_all(prefix, masks)
                regions = RegionTokens.joined([region.tokens for region in encoded])
        elif len(masks) or IMAGE_TOKEN_ID in prompt:
            raise PlaceholderMismatch("masks or <image> were given without an image; pass the image they belong to")
        if IMAGE_TOKEN_ID in prompt[shared:]:
            raise PlaceholderMismatch("expected one <image>, at the beginning of the first message")
        question = Question("", choices=as_choices(choices), multiple=multiple, max_new_tokens=max_new_tokens)
        plan = self._parts.planner.plan_ids(question, prompt, shared)
        (suffix_SD,) = embed_rows(self._decoder, self.tokenizer.mask_token_id, [plan.tail_ids], regions)
        row = Row(kv, num_prompt=len(plan.tail_ids), max_new_tokens=plan.limit, walk=plan.walk())
        batch = RunningBatch(self._decoder, self.tokenizer.eos_token_id, self._budget)
        batch.admit([Entry(row, suffix_SD)])
        while not row.ended:
            batch.step()
        warnings = () if regions is None else mask_warnings(regions)
        return answer_of(row, question, self.tokenizer, warnings)

    def _static_step(self) -> StaticStep | None:
        """Create the static step of a GPU; None on a CPU, where fixed shapes bring nothing."""
        if self._decoder.device.type != "cuda":
            return None
        return StaticStep(self._decoder, capture=True)
