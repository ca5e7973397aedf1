"""Image, masks and text -> the model's inputs: `model.generate(**processor(image, masks, "What is {region}?"))`.

This prepares the same inputs as `Osprey.chat`, as a transformers processor.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import BatchFeature, ProcessorMixin

from osprey_model.config import IMAGE_TOKEN_ID, OspreyConfig
from osprey_model.hf.hf_tokenizer import OspreyHfTokenizer
from osprey_model.inputs.images import as_image
from osprey_model.inputs.masks import BadMask, as_mask
from osprey_model.inputs.messages import Messages, as_turns
from osprey_model.inputs.preprocess import ImagePreprocessor
from osprey_model.inputs.prompts import INFERENCE, PREFIX_P, clean, drop_repeats
from osprey_model.inputs.tokenizer import IMAGE_TOKEN, MASK_TOKEN, OspreyTokenizer
from osprey_model.modeling.splice import PlaceholderMismatch

PROCESSOR_FILE = "processor_config.json"
_RENDERED = " ASSISTANT:"


class OspreyProcessor(ProcessorMixin):  # type: ignore[misc] # transformers is untyped here
    """The tokenizer and the image preprocessing of one checkpoint."""

    attributes = ["tokenizer"]  # noqa: RUF012 - transformers' own form
    tokenizer_class = "OspreyHfTokenizer"

    def __init__(self, tokenizer: OspreyHfTokenizer, image_size: int = 512, **kwargs: Any) -> None:
        """Create a processor; `from_pretrained` reads both values from a folder.

        Args:
            tokenizer: of the checkpoint.
            image_size: side of the model's input in pixels.
        """
        super().__init__(tokenizer, **kwargs)
        self.image_size = image_size
        self._osprey_tokenizer = OspreyTokenizer.from_json_text(
            tokenizer.backend_tokenizer.to_str(), source="the processor's tokenizer"
        )
        self._preprocess = ImagePreprocessor(image_size)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **_: Any) -> OspreyProcessor:
        """Read a folder written by `save_pretrained`, or any checkpoint folder, whose config has the image size.

        Raises:
            FileNotFoundError: the folder has no tokenizer, or neither a processor's nor a model's config.
        """
        folder = Path(pretrained_model_name_or_path)
        file = folder / PROCESSOR_FILE
        if file.is_file():
            image_size = int(json.loads(file.read_text(encoding="utf-8"))["image_size"])
        else:
            image_size = OspreyConfig.from_file(folder).image_size
        return cls(OspreyHfTokenizer.from_pretrained(folder), image_size)

    def save_pretrained(self, save_directory: Any, **_: Any) -> list[str]:
        """Write the tokenizer and `processor_config.json`; return the paths of the files."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        files = list(self.tokenizer.save_pretrained(folder))
        values = {"processor_class": type(self).__name__, "image_size": self.image_size}
        (folder / PROCESSOR_FILE).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
        return [*files, str(folder / PROCESSOR_FILE)]

    def __call__(
        self, images: Any = None, masks: Any = None, text: Messages | Sequence[Messages] | None = None, **_: Any
    ) -> BatchFeature:
        """Prepare the inputs of `OspreyForCausalLM.forward` and `generate`, on the CPU.

        Args:
            images: one image (see `osprey_model.inputs.images.as_image`), or None for text only; a list of them for a
                batch.
            masks: one per `<mask><pos>` or `{region}` of the text, in order; a list of lists for a batch.
            text: a question, a conversation (see `osprey_model.inputs.messages.as_turns`) or a result of
                `apply_chat_template`; a list of strings or conversations for a batch.

        Returns:
            `input_ids` and `attention_mask` (B, L), right padded. `images` (B, 3, S, S), if any sample has an image.
            `masks`, if any sample has a region: per sample (R, H, W), a list of (H, W) if sizes differ, or None.

        Raises:
            BadImage, BadMask, BadMessages: an input cannot be read; masks and samples are named.
            PlaceholderMismatch: placeholders and images or masks differ in number.
        """
        if text is None:
            raise PlaceholderMismatch(
                "expected text beside image and masks: processor(image, masks, 'What is {region}?')"
            )
        if _is_batch(text):
            samples = list(cast(Sequence[Messages], text))
        else:
            images, masks, samples = [images], [masks], [cast(Messages, text)]
        all_images = _per_sample(images, len(samples), "images")
        all_masks = _per_sample(masks, len(samples), "masks")
        ids, pixels, regions = [], [], []
        for idx, (image, own_masks, messages) in enumerate(zip(all_images, all_masks, samples, strict=True)):
            prompt = self.apply_chat_template(messages, has_image=image is not None)
            ids.append(torch.tensor(self._osprey_tokenizer.encode_prompt(prompt)))
            if prompt.count(IMAGE_TOKEN) != (image is not None) or (image is None and own_masks):
                raise PlaceholderMismatch(
                    f"sample {idx}: expected an image with one <image> in the text, or no image, <image> and masks; "
                    f"got {'an' if image is not None else 'no'} image and {prompt.count(IMAGE_TOKEN)} <image>"
                )
            regions.append(_regions(idx, own_masks, prompt))
            size = (3, self.image_size, self.image_size)
            pixels.append(torch.zeros(size) if image is None else self._preprocess(as_image(image)))
        lengths = torch.tensor([len(row) for row in ids])
        padded = pad_sequence(ids, batch_first=True, padding_value=self._osprey_tokenizer.pad_token_id)
        data: dict[str, Any] = {
            "input_ids": padded,
            "attention_mask": (torch.arange(padded.shape[1])[None] < lengths[:, None]).long(),
        }
        if any(image is not None for image in all_images):
            data["images"] = torch.stack(pixels)
        if any(region is not None for region in regions):
            data["masks"] = regions
        return BatchFeature(data)

    def apply_chat_template(self, conversation: Messages, *, has_image: bool = True, **_: Any) -> str:
        """Render a conversation as a prompt, with prefix P before its first message if it is about an image.

        A prompt that is already rendered is returned unchanged.
        """
        if isinstance(conversation, str) and conversation.startswith(INFERENCE.system):
            return conversation
        (message, answer), *later = as_turns(conversation)
        if has_image and IMAGE_TOKEN not in message:
            message = PREFIX_P + message
        return INFERENCE.prompt([(message, answer), *later])

    def decode(self, token_ids: Any, skip_special_tokens: bool = True, **_: Any) -> str:
        """Decode ids, which may contain the image's -200."""
        ids = token_ids.tolist() if isinstance(token_ids, Tensor) else list(token_ids)
        pieces: list[list[int]] = [[]]
        for token_id in ids:
            if token_id == IMAGE_TOKEN_ID:
                pieces.append([])
            else:
                pieces[-1].append(token_id)
        texts = [self.tokenizer.decode(piece, skip_special_tokens=skip_special_tokens) for piece in pieces]
        return ("" if skip_special_tokens else IMAGE_TOKEN).join(texts)

    def batch_decode(self, sequences: Any, skip_special_tokens: bool = True, **_: Any) -> list[str]:
        """Decode every row; see `decode`."""
        return [self.decode(row, skip_special_tokens) for row in sequences]

    def answers(self, sequences: Tensor, inputs: Mapping[str, Any]) -> list[str]:
        """Return the answers in the result of `generate` for `inputs`, cleaned as `Osprey.chat` cleans them."""
        new = sequences[:, inputs["input_ids"].shape[1] :]
        return [drop_repeats(clean(text)) for text in self.batch_decode(new)]


def _is_batch(text: Any) -> bool:
    return not isinstance(text, str) and bool(len(text)) and isinstance(text[0], str | list)


def _per_sample(values: Any, num_samples: int, name: str) -> Sequence[Any]:
    if values is None:
        return [None] * num_samples
    if not isinstance(values, list | tuple) or len(values) != num_samples:
        given = len(values) if isinstance(values, list | tuple) else type(values).__name__
        raise PlaceholderMismatch(f"expected a list of {num_samples} {name}, one per text, got {given}")
    return values


def _regions(sample_idx: int, masks: Any, prompt: str) -> Tensor | list[Tensor] | None:
    """Return the masks of a sample: (R, H, W), a list of (H, W) if sizes differ, or None without regions."""
    given = [] if masks is None else list(masks)
    if prompt.count(MASK_TOKEN) != len(given):
        raise PlaceholderMismatch(
            f"sample {sample_idx}: {prompt.count(MASK_TOKEN)} <mask> placeholders but {len(given)} masks were given; "
            "write {region} (or <mask><pos>) once per mask, in the order of the masks"
        )
    read = []
    for idx, mask in enumerate(given):
        try:
            read.append(as_mask(mask))
        except BadMask as error:
            raise type(error)(f"sample {sample_idx}, mask {idx}: {error}") from error
    if not read:
        return None
    return torch.stack(read) if len({mask.shape for mask in read}) == 1 else read
