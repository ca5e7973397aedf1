"""What a training run is asked to do, and what it gives back. Neighbours: `train.py` does it, `cli/train.py` asks."""

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
# May differ between a run and its continuation: they do not touch what is learned.
_MAY_CHANGE = ("out", "resume", "exact", "save_steps", "keep_checkpoints", "log_steps", "progress", "workers",
               "cache_bytes", "model", "data", "held_out")  # fmt: skip


class RunExists(ValueError):
    """The output folder holds checkpoints, but the run is not to be continued."""


class RunDiffers(ValueError):
    """The checkpoints in the output folder are of a run with other settings."""


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """One run. What is None is taken from the stage's row.

    Attributes:
        stage: row of the table.
        model: checkpoint folder to start from, with its tokenizer.
        data: a data config (see `osprey_model/data/mixture.py`).
        out: the result and the checkpoints go here.
        held_out: a data config that is evaluated, never learned.
        epochs: passes over the data.
        max_steps: stop there, whatever `epochs` says.
        learning_rate: the highest, after the warm-up.
        batch_size: samples per optimizer step, over all devices.
        device_batch_size: samples a device holds at once; the rest is accumulated. None: all of its share.
        lora: other options of the LoRA row.
        adapter: stage lora: begin with the values of this adapter folder, which has the same options.
        eval_steps: held-out loss every so many steps; None: every epoch.
        patience: stop when so many evaluations in a row were not better than the best; the best weights are kept.
        save_steps: a checkpoint every so many steps; None: every epoch.
        keep_checkpoints: the newest so many, and the best.
        log_steps: a loss in the curve every so many steps.
        seed: of data order, drawn questions, fresh weights and dropout.
        on_error: whether a bad entry ends the run ("raise") or is left out, counted and reported ("skip").
        check_data: read every entry once before training: labels, length, image file.
        bf16: compute in bfloat16, keep frozen weights in it; None: on a GPU.
        gradient_checkpointing: compute the decoder's activations again in the backward pass: slower, less memory.
        cache_bytes: keep the frozen tower's features of so many bytes of images in memory; 0: compute them anew.
        workers: loader processes; 0 with a cache, which lives in this process.
        device: "auto" or "cpu".
        resume: continue from the newest complete checkpoint in `out`, if there is one.
        exact: continue only if every number will be what it would have been without the stop; see `conditions.py`.
        progress: show a bar.
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
        """Refuse what cannot be run.

        Raises:
            ValueError: an unknown stage, or settings that exclude each other.
        """
        if self.stage not in STAGES:
            raise ValueError(f"unknown stage {self.stage!r}; known: {', '.join(STAGES)}")
        if self.patience is not None and self.held_out is None:
            raise ValueError("patience needs held_out data to look at")
        if self.held_out is None and self.eval_steps is not None:
            raise ValueError("eval_steps needs held_out data to evaluate on")
        if self.held_out is not None and self.save_steps is not None:
            raise ValueError("with held_out data a checkpoint is written at every evaluation: give eval_steps instead")
        if self.lora is not None and self.row.lora is None:
            raise ValueError(f"stage {self.stage} has no LoRA matrices; lora options belong to stage lora")
        if self.adapter is not None and self.row.lora is None:
            raise ValueError(f"stage {self.stage} has no LoRA matrices; an adapter to begin with belongs to stage lora")
        if self.exact and not self.resume:
            raise ValueError("exact is about continuing a run: give resume, too")
        if self.cache_bytes and self.workers:
            raise ValueError("the feature cache lives in the training process: use it with workers=0")

    @property
    def row(self) -> Stage:
        """The stage's row, with this run's numbers."""
        given = {name: getattr(self, name) for name in ("epochs", "learning_rate", "batch_size", "lora")}
        return dataclasses.replace(STAGES[self.stage], **{k: v for k, v in given.items() if v is not None})

    def facts(self) -> dict[str, Any]:
        """What decides what is learned: settings, the model by its fingerprint, the data by type, name and content."""
        values = {k: v for k, v in dataclasses.asdict(self).items() if k not in _MAY_CHANGE}
        data, held_out = _data_facts(self.data), _data_facts(self.held_out)
        adapter = None if self.adapter is None else adapter_fingerprint(self.adapter)
        return {**values, "model": fingerprint(self.model), "adapter": adapter, "data": data, "held_out": held_out}

    def begin(self, *, has_checkpoint: bool) -> None:
        """Write the facts into the output folder, or compare with those that stand there.

        Raises:
            RunExists: checkpoints are there and `resume` is off.
            RunDiffers: they are of another run.
        """
        path, facts = self.out / RUN_FILE, json.loads(json.dumps(self.facts()))
        if has_checkpoint and not self.resume:
            raise RunExists(f"{self.out} holds checkpoints of a run; continue it with resume, or name another folder")
        if has_checkpoint and path.is_file():
            before = json.loads(path.read_text(encoding="utf-8"))
            changed = sorted(k for k in before.keys() | facts.keys() if before.get(k) != facts.get(k))
            if changed:
                shown = "; ".join(f"{k}: was {before.get(k)!r}, is {facts.get(k)!r}" for k in changed)
                raise RunDiffers(f"{self.out} holds a run with other settings ({shown[:400]}); name another folder")
        self.out.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What a run has learned, and how it went.

    Attributes:
        out: a checkpoint folder, or the adapter folder of stage lora.
        steps: optimizer steps, those before a continuation included.
        final_loss: the last point of the loss curve.
        losses: (step, mean loss since the point before).
        held_out_losses: (step, mean loss per learned token).
        best_held_out_loss: of the weights that were kept; None without held-out data.
        stopped_early: patience ran out.
        num_samples: of one epoch.
        bad_entries: what was left out before training, by file and entry.
        replaced_entries: what turned out bad while training (an empty mask, an unreadable image), likewise.
        num_replaced: how many those are.
        seconds: of this call's training loop.
        steps_per_s: in this call.
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
        """Into `out`, as JSON."""
        values = {**dataclasses.asdict(self), "out": str(self.out)}
        (self.out / RESULT_FILE).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _data_facts(path: Path | None) -> Any:
    files = [] if path is None else read_data_config(path)
    return [(file.type, file.ann_file.name, _content(file.ann_file), file.weight) for file in files]


def _content(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
