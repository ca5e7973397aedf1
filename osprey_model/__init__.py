"""Osprey: pixel-level image understanding (arXiv 2312.10032), with an engine for many questions at once.

`from osprey_model import Osprey, Question, RegionRequest` is all a caller needs. The names are loaded when
first used, so that importing a light module such as `osprey_model.config` does not import torch.
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
