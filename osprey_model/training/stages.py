"""The paper's three training stages as one table.

Stages 2 and 3 have the numbers of the released training scripts. Stage 1 is not in the released code: its
rate, batch size and epochs are the paper's (section 4.1), quoted from memory and not yet checked against it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

Part = Literal["projector", "mask_extractor", "decoder"]

# Where a part's parameters live in the model; the tower (`model.vision_tower.`) is in no stage.
PREFIXES: Mapping[Part, tuple[str, ...]] = {
    "projector": ("model.mm_projector.",),
    "mask_extractor": ("mask_extractor.",),
    "decoder": ("model.embed_tokens.", "model.layers.", "model.norm.", "lm_head."),
}


@dataclass(frozen=True, slots=True)
class Stage:
    """One row: what trains, and how."""

    trains: tuple[Part, ...]
    template: Literal["plain", "v1"]
    learning_rate: float
    epochs: int
    batch_size: int  # over all devices
    schedule: Literal["cosine"] = "cosine"
    warmup_ratio: float = 0.03
    weight_decay: float = 0.0
    adam_betas: tuple[float, float] = (0.9, 0.999)
    adam_epsilon: float = 1e-8


STAGES: Mapping[int, Stage] = {
    1: Stage(("projector",), "plain", learning_rate=1e-3, epochs=1, batch_size=128),
    2: Stage(("mask_extractor",), "v1", learning_rate=2e-5, epochs=2, batch_size=4),
    3: Stage(("projector", "mask_extractor", "decoder"), "v1", learning_rate=1e-5, epochs=2, batch_size=4),
}


def freeze_for(model: nn.Module, stage: Stage) -> list[str]:
    """Let exactly the stage's parameters train; returns their names.

    Raises:
        ValueError: a part the stage trains has no parameter in this model.
    """
    for part in stage.trains:
        if not any(name.startswith(PREFIXES[part]) for name, _ in model.named_parameters()):
            raise ValueError(f"the stage trains {part}, but no parameter begins with {PREFIXES[part]}; is this Osprey?")
    prefixes = tuple(prefix for part in stage.trains for prefix in PREFIXES[part])
    names = []
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(prefixes))
        if parameter.requires_grad:
            names.append(name)
    return names


def build_optimizer(model: nn.Module, stage: Stage, *, learning_rate: float | None = None) -> torch.optim.AdamW:
    """AdamW over the parameters `freeze_for` left trainable; `learning_rate` replaces the table's."""
    return torch.optim.AdamW(
        [parameter for parameter in model.parameters() if parameter.requires_grad],
        lr=stage.learning_rate if learning_rate is None else learning_rate,
        betas=stage.adam_betas,
        eps=stage.adam_epsilon,
        weight_decay=stage.weight_decay,
    )
