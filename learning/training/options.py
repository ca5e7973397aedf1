"""How a fine-tune trains: the command's options, `OSPREY_FINETUNE_*`, or what suits the checkpoint. No torch here.

A checkpoint folder may hold `finetune.json`, an object of the names below: a model of another size wants another rate.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic_settings import SettingsConfigDict

from job_queue.settings import Count, Fraction, NotNegative, OspreySettings, Positive, PositiveWhole, Switch, setting

OPTIONS_FILE = "finetune.json"


class FineTuneOptions(OspreySettings):
    """The options of a fine-tune. The defaults are for Osprey-7b."""

    model_config = SettingsConfigDict(alias_generator=lambda name: f"OSPREY_FINETUNE_{name.upper()}")

    learning_rate: Positive = setting(2e-4, "highest rate of the LoRA matrices, after the warm-up", compose=True)
    whole_rate: Positive = setting(
        0.1, "rate of projector and mask extractor, as a fraction of the LoRA rate", compose=True
    )
    epochs: Positive = setting(2.0, "passes over new and replayed entries, at most", compose=True)
    max_steps: PositiveWhole | None = setting(
        None, "stop after this many optimizer steps", shown="no limit", compose=True
    )
    batch_size: PositiveWhole = setting(4, "entries per optimizer step", compose=True)
    device_batch_size: PositiveWhole | None = setting(
        None, "entries that a device holds at once", shown="the whole batch", compose=True
    )
    rank: PositiveWhole = setting(64, "rank of the LoRA matrices")
    alpha: PositiveWhole = setting(16, "LoRA's alpha; the update is scaled by alpha / rank")
    dropout: Fraction = setting(0.05, "dropout in front of the LoRA matrices")
    vocabulary: Switch = setting(
        True, "`on`: adapt the embedding table and the head, for words that are new to the model"
    )
    replay: NotNegative = setting(1.0, "replay entries per new entry", compose=True)
    held_out: Fraction | None = setting(
        None, "share of the images that only the gate sees",
        shown="see [Fine-tuning](learning/finetune.md#held-out-images)", compose=True,
    )  # fmt: skip
    patience: PositiveWhole = setting(2, "stop after this many epochs without a lower held-out loss")
    gradient_checkpointing: Switch = setting(False, "`on`: less memory, slower", compose=True)
    cache_bytes: Count = setting(1 << 30, "memory for the tower's features of images")
    seed: Count = setting(0, "seed of data order, replay sample and new matrices")
    gate: Switch = setting(True, "`off`: do not run the gate after training")

    @classmethod
    def for_checkpoint(cls, folder: Path, environ: Mapping[str, str], **given: Any) -> Self:
        """Return the options of a fine-tune of a checkpoint.

        Args:
            folder: the checkpoint's; its `finetune.json` replaces the defaults.
            environ: `OSPREY_FINETUNE_*` replace both.
            **given: replace all of these, where not None.

        Raises:
            ValueError: an option, a variable or the file cannot be used; the message names it.
        """
        values = {**cls._of_file(folder / OPTIONS_FILE), **cls.from_env(environ).model_dump(exclude_unset=True)}
        return cls.checked({**values, **{name: value for name, value in given.items() if value is not None}})

    @classmethod
    def _of_file(cls, path: Path) -> dict[str, Any]:
        """Return the options in a checkpoint's file; none where there is no file."""
        if not path.is_file():
            return {}
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is not JSON: {error}") from error
        if not isinstance(values, dict) or values.keys() - cls.model_fields.keys():
            raise ValueError(
                f"{path}: expected an object with some of {sorted(cls.model_fields)}, got {str(values)[:200]}"
            )
        return cls.checked(values, f"{path}: ").model_dump(exclude_unset=True)
