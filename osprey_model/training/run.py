"""The options of a training run, and its result."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from osprey_model.data.mixture import OnError, read_data_config
from osprey_model.training.stages import STAGES, LoraOptions, Stage, StageName
from osprey_model.weights.adapter import adapter_fingerprint
from osprey_model.weights.checkpoint import fingerprint

RUN_FILE = "run.json"
RESULT_FILE = "result.json"
# Options that a continuation may change, because they do not affect the weights. For model and data, `facts` compares
# the content instead of the path.
_MAY_CHANGE = ("out", "resume", "exact", "save_steps", "keep_checkpoints", "log_steps", "progress", "workers",
               "cache_bytes", "model", "data", "held_out")  # fmt: skip


class RunExists(ValueError):
    """The output folder contains checkpoints, and the run does not ask to continue."""


class RunDiffers(ValueError):
    """The checkpoints in the output folder belong to a run with other settings."""


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """The options of one run. `epochs`, `learning_rate`, `batch_size` and `lora` default to those of the stage.

    Attributes:
        stage: key of `STAGES`.
        model: checkpoint folder to start from, with its tokenizer.
        data: data config (see `osprey_model/data/mixture.py`).
        out: folder for the result and the checkpoints.
        held_out: data config that is evaluated but not trained on.
        epochs: passes over the data.
        max_steps: number of optimizer steps; takes precedence over `epochs`.
        learning_rate: highest learning rate, reached after the warm-up.
        batch_size: samples per optimizer step, over all devices.
        device_batch_size: samples in one forward pass of a device; gradients of several passes are accumulated.
            None: the device's whole share of the batch in one pass.
        lora: LoRA options, only for stage lora.
        adapter: adapter folder whose weights are the start, only for stage lora; it must have the same LoRA options.
        eval_steps: steps between two evaluations; None: evaluate after every epoch.
        patience: stop after this many evaluations in a row without improvement; the best weights are kept.
        save_steps: steps between two checkpoints; None: one after every epoch.
        keep_checkpoints: number of newest checkpoints to keep, besides the best one.
        log_steps: steps between two points of the loss curve.
        seed: seed of data order, random questions, new weights and dropout.
        on_error: what to do with a bad entry: "raise" an error, or "skip" it and list it in the result.
        check_data: check labels, length and image file of every entry before training.
        bf16: compute in bfloat16 and keep frozen weights in it; None: on a GPU.
        gradient_checkpointing: recompute the decoder's activations in the backward pass: slower, less memory.
        cache_bytes: memory for the frozen tower's features of images; 0: no cache.
        workers: number of loader processes; must be 0 with a cache, because the cache is in this process.
        device: "auto" or "cpu".
        resume: continue from the newest complete checkpoint in `out`, if there is one.
        exact: continue only under conditions that keep every number the same; see `conditions.py`.
        progress: show a progress bar.
    """

    stage: StageName
    model: Path
    data: Path
    out: Path
    held_out: Path | None = None
    epochs: float | None = None
    max_steps: int | None = None
    learning_rate: float | None = None
    batch_size: int | None = None
    device_batch_size: int | None = None
    lora: LoraOptions | None = None
    adapter: Path | None = None
    eval_steps: int | None = None
    patience: int | None = None
    save_steps: int | None = None
    keep_checkpoints: int = 2
    log_steps: int = 10
    seed: int = 0
    on_error: OnError = "raise"
    check_data: bool = True
    bf16: bool | None = None
    gradient_checkpointing: bool = False
    cache_bytes: int = 0
    workers: int = 0
    device: Literal["auto", "cpu"] = "auto"
    resume: bool = False
    exact: bool = False
    progress: bool = True

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ValueError: the stage is unknown, or two options exclude each other.
        """
        if self.stage not in STAGES:
            raise ValueError(f"unknown stage {self.stage!r}; known: {', '.join(STAGES)}")
        if self.patience is not None and self.held_out is None:
            raise ValueError("patience needs held_out data to evaluate on")
        if self.held_out is None and self.eval_steps is not None:
            raise ValueError("eval_steps needs held_out data to evaluate on")
        if self.held_out is not None and self.save_steps is not None:
            raise ValueError(
                "with held_out data a checkpoint is written at every evaluation; use eval_steps instead of save_steps"
            )
        if self.lora is not None and self.row.lora is None:
            raise ValueError(f"stage {self.stage} has no LoRA matrices; use LoRA options only with stage lora")
        if self.adapter is not None and self.row.lora is None:
            raise ValueError(f"stage {self.stage} has no LoRA matrices; start from an adapter only with stage lora")
        if self.exact and not self.resume:
            raise ValueError("exact applies only to the continuation of a run; use it with resume")
        if self.cache_bytes and self.workers:
            raise ValueError("loader processes cannot use the feature cache of this process; set workers=0")

    @property
    def row(self) -> Stage:
        """The stage with the values of this run."""
        given = {name: getattr(self, name) for name in ("epochs", "learning_rate", "batch_size", "lora")}
        return dataclasses.replace(STAGES[self.stage], **{k: v for k, v in given.items() if v is not None})

    def facts(self) -> dict[str, Any]:
        """Return everything that affects the trained weights, as JSON values.

        These are the options, the model's fingerprint, and type, name, content hash and weight of each data file.
        """
        values = {k: v for k, v in dataclasses.asdict(self).items() if k not in _MAY_CHANGE}
        data, held_out = _data_facts(self.data), _data_facts(self.held_out)
        adapter = None if self.adapter is None else adapter_fingerprint(self.adapter)
        return {**values, "model": fingerprint(self.model), "adapter": adapter, "data": data, "held_out": held_out}

    def begin(self, *, has_checkpoint: bool) -> None:
        """Compare the facts with those of the run whose checkpoints are in the output folder, then write them there.

        Args:
            has_checkpoint: whether the output folder contains a complete checkpoint.

        Raises:
            RunExists: there is a checkpoint, and `resume` is off.
            RunDiffers: the checkpoint belongs to a run with other facts.
        """
        path, facts = self.out / RUN_FILE, json.loads(json.dumps(self.facts()))
        if has_checkpoint and not self.resume:
            raise RunExists(f"{self.out} contains checkpoints; continue the run with resume, or name another folder")
        if has_checkpoint and path.is_file():
            before = json.loads(path.read_text(encoding="utf-8"))
            changed = sorted(k for k in before.keys() | facts.keys() if before.get(k) != facts.get(k))
            if changed:
                shown = "; ".join(f"{k}: was {before.get(k)!r}, is {facts.get(k)!r}" for k in changed)
                raise RunDiffers(f"{self.out} contains a run with other settings ({shown[:400]}); name another folder")
        self.out.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """Where the trained weights are, and how the run went.

    Attributes:
        out: checkpoint folder, or for stage lora the adapter folder.
        steps: optimizer steps, including those before a continuation.
        final_loss: last point of the loss curve.
        losses: loss curve as (step, mean loss since the previous point).
        held_out_losses: evaluations as (step, mean loss per learned token).
        best_held_out_loss: held-out loss of the weights that were kept; None without held-out data.
        stopped_early: whether the run ended before its last planned step, because `patience` was exhausted.
        num_samples: samples of one epoch.
        bad_entries: one message with file and index for each entry that was left out before training.
        replaced_entries: the same for each entry that turned out bad during training (an empty mask, an unreadable
            image) and was replaced by another one.
        num_replaced: length of `replaced_entries`.
        seconds: duration of the training loop of this call.
        steps_per_s: optimizer steps per second in this call.
    """

    out: Path
    steps: int
    final_loss: float
    losses: tuple[tuple[int, float], ...]
    held_out_losses: tuple[tuple[int, float], ...]
    best_held_out_loss: float | None
    stopped_early: bool
    num_samples: int
    bad_entries: tuple[str, ...]
    replaced_entries: tuple[str, ...]
    num_replaced: int
    seconds: float
    steps_per_s: float

    def write(self) -> None:
        """Write the result as `result.json` into `out`."""
        values = {**dataclasses.asdict(self), "out": str(self.out)}
        (self.out / RESULT_FILE).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _data_facts(path: Path | None) -> Any:
    files = [] if path is None else read_data_config(path)
    return [(file.type, file.ann_file.name, _content(file.ann_file), file.weight) for file in files]


def _content(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
