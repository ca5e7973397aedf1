"""How a fine-tune trains: the command's options, `OSPREY_FINETUNE_*`, or what suits the checkpoint. No torch here.

A checkpoint folder may hold `finetune.json`, an object of the names below: a model of another size wants another rate.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

PREFIX = "OSPREY_FINETUNE_"
OPTIONS_FILE = "finetune.json"


@dataclass(frozen=True, slots=True)
class FineTuneOptions:
    """The defaults are for Osprey-7b.

    Attributes:
        learning_rate: of the LoRA matrices, the highest, after the warm-up.
        whole_rate: of projector and mask extractor, which train whole: a share of `learning_rate`.
        epochs: passes over new and replayed entries, at most.
        max_steps: stop there, whatever `epochs` says.
        batch_size: entries per optimizer step.
        device_batch_size: entries a device holds at once.
        rank: of the LoRA matrices.
        alpha: LoRA's; the update is scaled by alpha / rank.
        dropout: in front of the LoRA matrices.
        vocabulary: adapt embedding table and head too, for words that are new to the model.
        replay: old entries for each new one.
        held_out: share of the images that nothing is learned from; the gate asks about them. None: see `held_out.py`.
        patience: stop when so many epochs in a row did not lower the held-out loss; the best weights are kept.
        gradient_checkpointing: less memory, slower.
        cache_bytes: keep the tower's features of images in so much memory.
        seed: of data order, replay sample and fresh matrices.
        gate: examine the candidate against the champion.
    """

    learning_rate: float = 2e-4
    whole_rate: float = 0.1
    epochs: float = 2.0
    max_steps: int | None = None
    batch_size: int = 4
    device_batch_size: int | None = None
    rank: int = 64
    alpha: int = 16
    dropout: float = 0.05
    vocabulary: bool = True
    replay: float = 1.0
    held_out: float | None = None
    patience: int = 2
    gradient_checkpointing: bool = False
    cache_bytes: int = 1 << 30
    seed: int = 0
    gate: bool = True

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            ValueError: a number out of its range; the message names it.
        """
        for name in ("learning_rate", "whole_rate", "epochs", "batch_size", "rank", "alpha", "patience"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} of a fine-tune must be above 0, got {getattr(self, name)!r}")
        if self.held_out is not None and not 0 <= self.held_out < 1:
            raise ValueError(f"held_out must be a share from 0 to below 1, got {self.held_out!r}")
        if self.replay < 0 or not 0 <= self.dropout < 1:
            raise ValueError(f"replay must not be negative and dropout in 0..1, got {self.replay} and {self.dropout}")

    @classmethod
    def for_checkpoint(cls, folder: Path, environ: Mapping[str, str], **given: Any) -> Self:
        """The options of a fine-tune of a checkpoint.

        Args:
            folder: the checkpoint's; its `finetune.json` stands in for the defaults.
            environ: `OSPREY_FINETUNE_*` count more than the file.
            **given: count more than both, where not None.

        Raises:
            ValueError: a variable or the file does not parse; the message names it.
        """
        values = _suits(folder / OPTIONS_FILE, {field.name: str(field.type) for field in dataclasses.fields(cls)})
        for field in dataclasses.fields(cls):
            name = PREFIX + field.name.upper()
            text = environ.get(name, "").strip()
            if text:
                values[field.name] = _parsed(name, text, str(field.type))
        return cls(**{**values, **{name: value for name, value in given.items() if value is not None}})


def _suits(path: Path, kinds: Mapping[str, str]) -> dict[str, Any]:
    """What stands in a checkpoint's file; nothing where there is none."""
    if not path.is_file():
        return {}
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(values, dict) or values.keys() - kinds.keys():
        raise ValueError(f"{path}: expected an object with some of {sorted(kinds)}, got {str(values)[:200]}")
    accepted: dict[str, tuple[type, ...]] = {"bool": (bool,), "float": (int, float), "int": (int,)}
    for name, value in values.items():
        is_kind = isinstance(value, accepted[kinds[name].removesuffix(" | None")])
        if not is_kind or (isinstance(value, bool) and kinds[name] != "bool"):
            raise ValueError(f"{path}: {name} must be {kinds[name]}, got {value!r}")
    return values


def _parsed(name: str, text: str, kind: str) -> Any:
    if kind == "bool":
        if text not in ("on", "off"):
            raise ValueError(f"{name} must be on or off, got {text!r}")
        return text == "on"
    convert: Callable[[str], Any] = float if kind.startswith("float") else int
    try:
        return convert(text.replace("_", ""))
    except ValueError as error:
        raise ValueError(f"{name} must be a number, got {text!r}") from error
