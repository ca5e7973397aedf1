"""Osprey: pixel-level image understanding (arXiv 2312.10032), with an engine that answers many questions together.

Callers need only `from osprey_model import Osprey, Question, RegionRequest`. The names below are imported when they
are first used, so that a light module such as `osprey_model.config` can be imported without torch.

In reading order:

config.py    all sizes of a model
inputs/      image, masks, text and conversation -> the model's input, exactly as in training
modeling/    the modules: tower, mask extractor, projector, decoder
weights/     checkpoint folders, adapters, quantisation: a folder -> a loaded model
engine/      `Osprey`: describe, describe_many, chat
data/        data sets -> training samples and batches
training/    the paper's training stages, and LoRA fine-tuning
hf/          the model, tokenizer and processor for transformers' Auto classes
auto.py      registers them
byte_lru.py  a cache with a limit in bytes
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from osprey_model.config import OspreyConfig
    from osprey_model.engine.engine import Osprey
    from osprey_model.engine.requests import (
        Alternative,
        Answer,
        AnswerWarning,
        Failure,
        ImageRequest,
        Question,
        RegionRequest,
    )

_EXPORTS = {
    "Alternative": "osprey_model.engine.requests",
    "Answer": "osprey_model.engine.requests",
    "AnswerWarning": "osprey_model.engine.requests",
    "Failure": "osprey_model.engine.requests",
    "ImageRequest": "osprey_model.engine.requests",
    "Osprey": "osprey_model.engine.engine",
    "OspreyConfig": "osprey_model.config",
    "Question": "osprey_model.engine.requests",
    "RegionRequest": "osprey_model.engine.requests",
}

__all__ = [
    "Alternative",
    "Answer",
    "AnswerWarning",
    "Failure",
    "ImageRequest",
    "Osprey",
    "OspreyConfig",
    "Question",
    "RegionRequest",
]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)
