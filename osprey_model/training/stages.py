"""The paper's three training stages and the LoRA fine-tuning as one table.

Stages 2 and 3 have the numbers of the released training scripts. Stage 1 is not in the released code: its
rate, batch size and epochs are the paper's (section 4.1), quoted from memory and not yet checked against it.
LoRA has the options of the released code (r 64, alpha 16, dropout 0.05); no recipe with them was published, so
rate, batch size and epochs are ours.

Neighbours: `osprey_model/training/lora.py` adds what the LoRA row trains, `trainer.py` follows the numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import nn

from osprey_model.inputs.prompts import TRAINING, Template

StageName = Literal["1", "2", "3", "lora"]
Part = Literal["projector", "mask_extractor", "decoder", "lora"]

# Where a part's parameters live in the model; the tower (`model.vision_tower.`) is in no stage.
PREFIXES: Mapping[Part, tuple[str, ...]] = {
    "projector": ("model.mm_projector.",),
    "mask_extractor": ("mask_extractor.",),
    "decoder": ("model.embed_tokens.", "model.layers.", "model.norm.", "lm_head."),
}
_ADAPTER_MARK = ".lora_"  # in the names of the matrices that PEFT adds beside a linear layer
_PEFT_PREFIX, _PEFT_COPY, _PEFT_ORIGINAL = "base_model.model.", ".modules_to_save.default.", ".original_module."


@dataclass(frozen=True, slots=True)
class LoraOptions:
    """Low-rank updates beside linear layers: W + alpha / rank * B A.

    `vocabulary` adapts the embedding table and the head too, for words the model has never had to say.
    `whole_rate` is the rate of projector and mask extractor as a share of the matrices': those start at zero and want
    a high one, under which the trained copies would forget (LLaVA's LoRA scripts give the projector a tenth as well).
    """

    rank: int = 64
    alpha: int = 16
    dropout: float = 0.05
    # The decoder's linear layers, not its head; the reference takes them all too.
    layers: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    vocabulary: bool = False
    whole_rate: float = 0.1


@dataclass(frozen=True, slots=True)
class Stage:
    """One row: what trains, and how. `template` None is the image with its caption, nothing else."""

    trains: tuple[Part, ...]
    template: Template | None
    learning_rate: float
    epochs: float
    batch_size: int  # over all devices
    schedule: Literal["cosine"] = "cosine"
    warmup_ratio: float = 0.03
    weight_decay: float = 0.0
    adam_betas: tuple[float, float] = (0.9, 0.999)
    adam_epsilon: float = 1e-8
    max_grad_norm: float = 1.0
    lora: LoraOptions | None = None


STAGES: Mapping[StageName, Stage] = {
    "1": Stage(("projector",), None, learning_rate=1e-3, epochs=1, batch_size=128),
    "2": Stage(("mask_extractor",), TRAINING, learning_rate=2e-5, epochs=2, batch_size=4),
    "3": Stage(("projector", "mask_extractor", "decoder"), TRAINING, learning_rate=1e-5, epochs=2, batch_size=4),
    "lora": Stage(
        ("projector", "mask_extractor", "lora"),
        TRAINING,
        learning_rate=2e-4,
        epochs=2,
        batch_size=4,
        lora=LoraOptions(),
    ),
}


def part_of(name: str) -> Part | None:
    """The part a parameter belongs to, by its name in a plain model or below a PEFT one; None: the tower.

    PEFT keeps the original of a module that is trained whole beside the copy that trains: the original is in no part.
    """
    if _PEFT_ORIGINAL in name:
        return None
    name = name.removeprefix(_PEFT_PREFIX).replace(_PEFT_COPY, ".")
    if _ADAPTER_MARK in name:
        return "lora"
    return next((part for part, prefixes in PREFIXES.items() if name.startswith(prefixes)), None)


def is_whole_copy(name: str) -> bool:
    """Whether PEFT trains the parameter as a whole copy beside its matrices."""
    return _PEFT_COPY in name


def freeze_for(model: nn.Module, stage: Stage) -> list[str]:
    """Let exactly the stage's parameters train; returns their names.

    Raises:
        ValueError: a part the stage trains has no parameter in this model.
    """
    names: list[str] = []
    found: set[Part] = set()
    for name, parameter in model.named_parameters():
        part = part_of(name)
        parameter.requires_grad_(part in stage.trains)
        if part is not None and part in stage.trains:
            found.add(part)
            names.append(name)
    for part in stage.trains:
        if part not in found:
            where = f"begins with {PREFIXES[part]}" if part in PREFIXES else f"has {_ADAPTER_MARK!r} in its name"
            raise ValueError(f"the stage trains {part}, but no parameter {where}; is this Osprey?")
    return names
