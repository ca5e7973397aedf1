"""The paper's three training stages and the LoRA fine-tuning as one table.

Stages 2 and 3 have the numbers of the released training scripts. Stage 1 is not in the released code: its learning
rate, batch size and epochs are the paper's (section 4.1), quoted from memory and not yet checked against it. LoRA has
the options of the released code (r 64, alpha 16, dropout 0.05). No recipe with them was published, so learning rate,
batch size and epochs are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import nn

from osprey_model.inputs.prompts import TRAINING, Template

StageName = Literal["1", "2", "3", "lora"]
Part = Literal["projector", "mask_extractor", "decoder", "lora"]

# How the names of a part's parameters begin. The tower (`model.vision_tower.`) is trained in no stage.
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

    Attributes:
        layers: linear layers of the decoder that are adapted: all but the head, as in the reference.
        vocabulary: adapt the embedding table and the head too, for answers that the base model was never trained on.
        whole_rate: learning rate of projector and mask extractor, as a fraction of the LoRA rate. LoRA matrices start
            at zero and need a high rate; at that rate projector and mask extractor would lose what they have learned.
            (LLaVA's LoRA scripts also train the projector at a tenth of the rate.)
    """

    rank: int = 64
    alpha: int = 16
    dropout: float = 0.05
    layers: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    vocabulary: bool = False
    whole_rate: float = 0.1


@dataclass(frozen=True, slots=True)
class Stage:
    """One row: the parts that are trained, and the hyperparameters. `template` None: an image and its caption only."""

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
    """Return the part that a parameter belongs to, by its name in a plain model or a PEFT model; None: the tower.

    For a module that is trained whole, PEFT keeps the original beside the copy that it trains. The original belongs to
    no part.
    """
    if _PEFT_ORIGINAL in name:
        return None
    name = name.removeprefix(_PEFT_PREFIX).replace(_PEFT_COPY, ".")
    if _ADAPTER_MARK in name:
        return "lora"
    return next((part for part, prefixes in PREFIXES.items() if name.startswith(prefixes)), None)


def is_whole_copy(name: str) -> bool:
    """Return whether a parameter belongs to a module that PEFT trains whole."""
    return _PEFT_COPY in name


def freeze_for(model: nn.Module, stage: Stage) -> list[str]:
    """Set `requires_grad` of exactly the stage's parameters; return their names.

    Raises:
        ValueError: a part that the stage trains has no parameter in this model.
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
