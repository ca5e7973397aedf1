"""The result of every reader: the turns of a conversation, the image's path and the regions.

Masks and image are read later, so that a whole file can be checked without opening an image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask
from torch import Tensor

from osprey_model.data.collate import Sample
from osprey_model.data.conversation import LabeledIds, encode_caption, encode_conversation
from osprey_model.data.packing import QuestionRow, encode_rows
from osprey_model.inputs.preprocess import ImagePreprocessor
from osprey_model.inputs.prompts import INFERENCE, TRAINING, Template
from osprey_model.inputs.tokenizer import IMAGE_TOKEN, MASK_TOKEN, POSITION_TOKEN, REGION_PLACEHOLDER, OspreyTokenizer

T = TypeVar("T")
# Image file -> pixels (3, S, S), or the frozen tower's levels of them.
ReadImage = Callable[[Path], Tensor | Mapping[str, Tensor]]


class Draws(Protocol):
    """The random choices of a reader."""

    def choose(self, items: Sequence[T]) -> T:
        """Return one of the items."""

    def permutation(self, count: int) -> list[int]:
        """Return the numbers 0..count-1 in some order."""


class RandomDraws:
    """Choices that a torch generator makes."""

    def __init__(self, generator: torch.Generator) -> None:
        """Draw from `generator`."""
        self._generator = generator

    def choose(self, items: Sequence[T]) -> T:
        """Return one of the items; all are equally likely."""
        return items[int(torch.randint(len(items), (1,), generator=self._generator))]

    def permutation(self, count: int) -> list[int]:
        """Return 0..count-1 in random order."""
        order: list[int] = torch.randperm(count, generator=self._generator).tolist()
        return order


class FirstDraws:
    """Choices without randomness, for the check of a whole file: always the first item and the given order."""

    def choose(self, items: Sequence[T]) -> T:
        """Return the first item."""
        return items[0]

    def permutation(self, count: int) -> list[int]:
        """Return 0..count-1."""
        return list(range(count))


class Region(Protocol):
    """A marked area of one image."""

    def mask(self) -> NDArray[np.bool_]:
        """Return the mask, bool (H, W); raises ValueError if the region is not valid."""


@dataclass(frozen=True, slots=True)
class CocoRegion:
    """A COCO `segmentation`: polygon list, uncompressed RLE or RLE, at the annotation's height and width."""

    segmentation: Any
    image_hw: tuple[int, int]

    def mask(self) -> NDArray[np.bool_]:
        """Rasterise the region with pycocotools.

        Raises:
            ValueError: the segmentation has no known form, or another size.
        """
        height, width = self.image_hw
        rle: Any = self.segmentation
        if isinstance(rle, list):
            if not rle or any(len(polygon) < 6 or len(polygon) % 2 for polygon in rle):
                lengths = [len(polygon) for polygon in rle]
                raise ValueError(f"expected polygons of at least 3 points x,y, got lists of lengths {lengths}")
            rle = coco_mask.merge(coco_mask.frPyObjects(rle, height, width))
        elif isinstance(rle, dict) and {"size", "counts"} <= set(rle):
            if tuple(rle["size"]) != self.image_hw:
                raise ValueError(f"RLE of size {rle['size']}, expected the annotation's {[height, width]}")
            if isinstance(rle["counts"], list):
                if sum(rle["counts"]) != height * width:
                    raise ValueError(f"RLE counts sum to {sum(rle['counts'])}, expected {height}x{width} pixels")
                rle = coco_mask.frPyObjects(rle, height, width)
        else:
            raise ValueError(f"expected a polygon list or an RLE with size and counts, got {str(rle)[:60]!r}")
        decoded: NDArray[np.bool_] = coco_mask.decode(rle).astype(bool)
        return decoded


@dataclass(frozen=True, slots=True)
class Record:
    """One training sample before its image and masks are read.

    Attributes:
        turns: (message, answer); the k-th placeholder of the messages belongs to the k-th region.
        image_path: file of the image.
        regions: in the order of their placeholders.
        weight: of the sample in the loss.
        row_weights: of each turn, if the turns are packed questions (`packing.py`); None: a conversation.
    """

    turns: tuple[tuple[str, str], ...]
    image_path: Path
    regions: tuple[Region, ...]
    weight: float = 1.0
    row_weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        """Check that every region has a placeholder, and that only messages contain placeholders.

        Raises:
            ValueError: they do not; regions and masks could be paired wrongly.
        """
        messages = [message for message, _ in self.turns]
        named = sum(message.count(REGION_PLACEHOLDER) for message in messages)
        stray = [text for text in (MASK_TOKEN, POSITION_TOKEN) if sum(m.count(text) for m in messages) != named]
        if named != len(self.regions) or stray:
            raise ValueError(f"the messages name {named} regions {stray or ''} and there are {len(self.regions)} masks")
        for _, answer in self.turns:
            if any(token in answer for token in (IMAGE_TOKEN, MASK_TOKEN, POSITION_TOKEN)):
                raise ValueError(f"an answer may not hold an image or region placeholder: {answer[:60]!r}")

    def ids(self, tokenizer: OspreyTokenizer, template: Template | None) -> LabeledIds:
        """Encode ids and labels.

        Args:
            tokenizer: of the model.
            template: of a conversation; None is that of stage 1: the image and the first answer only.

        Raises:
            LabelMismatch: the tokens of a prompt change when its answer follows.
            ValueError: the record has regions, which stage 1 does not support.
        """
        if self.row_weights is not None:
            rows = [
                QuestionRow(message, answer, weight)
                for (message, answer), weight in zip(self.turns, self.row_weights, strict=True)
            ]
            # Regardless of the stage's template, because the engine will ask with this one.
            return encode_rows(tokenizer, rows, template=INFERENCE)
        if template is not None:
            return encode_conversation(tokenizer, self.turns, template=template)
        if self.regions:
            raise ValueError(
                f"stage 1 learns captions of whole images, but this sample has {len(self.regions)} regions"
            )
        return encode_caption(tokenizer, self.turns[0][1])

    def masks(self) -> NDArray[np.bool_]:
        """Return the masks, bool (R, H, W), R > 0.

        Raises:
            ValueError: a region is not valid, or its mask has no pixel.
        """
        masks = []
        for number, region in enumerate(self.regions, start=1):
            mask = region.mask()
            if not mask.any():
                raise ValueError(f"the mask of region {number} covers no pixel of {mask.shape[1]}x{mask.shape[0]}")
            masks.append(mask)
        return np.stack(masks)

    def sample(
        self,
        tokenizer: OspreyTokenizer,
        read_image: ReadImage,
        *,
        template: Template | None = TRAINING,
    ) -> Sample:
        """Encode the turns, read the image and make the masks, float (R, H, W).

        Raises:
            OSError: the image is missing or cannot be decoded.
            ValueError: a mask or the turns are not valid.
        """
        ids = self.ids(tokenizer, template)
        image = read_image(self.image_path)
        masks = torch.from_numpy(self.masks()).float() if self.regions else None
        return Sample(ids, image, masks, self.weight)


@dataclass(frozen=True, slots=True)
class PixelReader:
    """Image file -> preprocessed pixels (3, S, S)."""

    preprocess: ImagePreprocessor

    def __call__(self, path: Path) -> Tensor:
        """Read and preprocess an image file.

        Raises:
            OSError: the file is missing or cannot be decoded.
        """
        with Image.open(path) as image:
            return self.preprocess(image)


def positive_hw(entry: Mapping[str, Any]) -> tuple[int, int]:
    """Return height and width of an entry's masks.

    Raises:
        ValueError: they are not two positive integers.
    """
    height, width = entry["height"], entry["width"]
    if not (isinstance(height, int) and isinstance(width, int) and height > 0 and width > 0):
        raise ValueError(f"expected positive integers for height and width, got {height!r} and {width!r}")
    return height, width
