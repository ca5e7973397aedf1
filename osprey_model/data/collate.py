"""Samples -> one right-padded batch for `OspreyForCausalLM.forward`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from osprey_model.config import IGNORE_INDEX
from osprey_model.data.conversation import LabeledIds


@dataclass(frozen=True, slots=True)
class Sample:
    """One conversation with its preprocessed image (3, S, S) and its masks (R, H, W) in order of appearance."""

    ids: LabeledIds
    image: Tensor | None
    masks: Tensor | None


class Batch(TypedDict):
    """Keyword arguments of the model's forward."""

    input_ids: Tensor
    labels: Tensor
    attention_mask: Tensor
    images: Tensor | None
    masks: list[Tensor | None] | None


def collate(samples: Sequence[Sample], *, pad_token_id: int) -> Batch:
    """Pad on the right. The attention mask comes from the lengths, so a real `<unk>` (the padding id) still counts.

    A sample without image gets a black one where others have theirs; the model ignores it.
    """
    ids = [torch.tensor(sample.ids.input_ids) for sample in samples]
    labels = [torch.tensor(sample.ids.labels) for sample in samples]
    lengths = torch.tensor([len(row) for row in ids])
    input_ids = pad_sequence(ids, batch_first=True, padding_value=pad_token_id)
    images = [sample.image for sample in samples]
    shapes = [image for image in images if image is not None]
    stacked = None
    if shapes:
        stacked = torch.stack([torch.zeros_like(shapes[0]) if image is None else image for image in images])
    return Batch(
        input_ids=input_ids,
        labels=pad_sequence(labels, batch_first=True, padding_value=IGNORE_INDEX),
        attention_mask=torch.arange(input_ids.shape[1])[None] < lengths[:, None],
        images=stacked,
        masks=[sample.masks for sample in samples] if stacked is not None else None,
    )
