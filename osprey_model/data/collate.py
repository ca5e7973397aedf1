"""Samples -> one right-padded batch for `OspreyForCausalLM.forward`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from osprey_model.config import IGNORE_INDEX
from osprey_model.data.conversation import LabeledIds


@dataclass(frozen=True, slots=True)
class Sample:
    """One conversation with its image and its masks in order of appearance.

    Attributes:
        ids: input ids and labels.
        image: preprocessed (3, S, S), or the frozen tower's levels of it, each (C, h, w).
        masks: (R, H, W).
        weight: of each learned token in the loss; 2 has the effect of including the sample twice.
    """

    ids: LabeledIds
    image: Tensor | Mapping[str, Tensor] | None
    masks: Tensor | None
    weight: float = 1.0


class Batch(TypedDict):
    """Keyword arguments of `OspreyForCausalLM.forward`."""

    input_ids: Tensor
    labels: Tensor
    attention_mask: Tensor
    images: Tensor | dict[str, Tensor] | None
    masks: list[Tensor | None] | None
    loss_weights: Tensor
    row_ids: Tensor | None


def collate(samples: Sequence[Sample], *, pad_token_id: int) -> Batch:
    """Pad samples on the right and stack them.

    The attention mask is made from the lengths, because a real `<unk>` has the id that is used for padding. If some
    samples have an image, the others get zeros, which the model does not use.
    """
    ids = [torch.tensor(sample.ids.input_ids) for sample in samples]
    labels = [torch.tensor(sample.ids.labels) for sample in samples]
    weights = [sample.weight * torch.tensor(sample.ids.weights or [1.0] * len(sample.ids.labels)) for sample in samples]
    lengths = torch.tensor([len(row) for row in ids])
    input_ids = pad_sequence(ids, batch_first=True, padding_value=pad_token_id)
    stacked = _stack([sample.image for sample in samples])
    return Batch(
        input_ids=input_ids,
        labels=pad_sequence(labels, batch_first=True, padding_value=IGNORE_INDEX),
        attention_mask=torch.arange(input_ids.shape[1])[None] < lengths[:, None],
        images=stacked,
        masks=[sample.masks for sample in samples] if stacked is not None else None,
        loss_weights=pad_sequence(weights, batch_first=True),
        row_ids=_row_ids(samples),
    )


def _row_ids(samples: Sequence[Sample]) -> Tensor | None:
    """Return row ids (B, L), 0 everywhere in a plain conversation; None if no sample is packed."""
    if all(sample.ids.row_ids is None for sample in samples):
        return None
    rows = [torch.tensor(sample.ids.row_ids or [0] * len(sample.ids.labels)) for sample in samples]
    return pad_sequence(rows, batch_first=True, padding_value=-1)


def _stack(images: Sequence[Tensor | Mapping[str, Tensor] | None]) -> Tensor | dict[str, Tensor] | None:
    given = [image for image in images if image is not None]
    if not given:
        return None
    if isinstance(given[0], Mapping):
        levels = [image for image in images if not isinstance(image, Tensor)]
        return {name: _stack_tensors([None if one is None else one[name] for one in levels]) for name in given[0]}
    return _stack_tensors([image for image in images if not isinstance(image, Mapping)])


def _stack_tensors(tensors: Sequence[Tensor | None]) -> Tensor:
    first = next(tensor for tensor in tensors if tensor is not None)
    return torch.stack([torch.zeros_like(first) if tensor is None else tensor for tensor in tensors])
