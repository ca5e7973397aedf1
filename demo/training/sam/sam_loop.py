"""The training loop of the small SAM: optimisers, averaged weights, snapshots, resuming."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from demo.training.sam.crops import View, object_view
from demo.training.sam.data import SceneStore
from demo.training.sam.model import NANO, DenseHead, HalfCopy, new_sam
from demo.training.sam.sam_eval import VALIDATION_SEEDS, Quality, measure
from demo.training.sam.step import CROP_PLAN, WHOLE_PLAN, StepReport, train_step
from registry.atomic_writes import Disk
from worker.sam.presets import build_sam, save_sam
from worker.sam.segmenter import SamSegmenter

_WARM_UP = 0.02  # share of the run
_FINAL_LR = 0.02  # share of the peak
_EMA_DECAY = 0.997
_SMOOTHING = 0.95


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """The settings of a run. The learning rate's schedule spans `minutes` of wall time."""

    out: Path
    work: Path
    minutes: float
    num_scenes: int = 8000
    batch_size: int = 6  # crops
    whole_batch_size: int = 2
    whole_every: int = 5  # steps; all others train on crops
    matrix_lr: float = 3e-3  # Muon, in AdamW's unit
    other_lr: float = 2e-3  # AdamW
    weight_decay: float = 0.02
    seed: int = 0
    snapshot_minutes: float = 5.0
    validation_scenes: int = 8


class Trainer:
    """The state of a training run. A snapshot saves all of it."""

    def __init__(self, settings: TrainSettings, device: torch.device) -> None:
        torch.manual_seed(settings.seed)
        self.settings = settings
        self.sam = new_sam(NANO).to(device)
        self.head = DenseHead(NANO.prompt_dim).to(device)
        self.half = HalfCopy(self.sam)
        self.average = {name: value.detach().clone() for name, value in self.sam.state_dict().items()}
        self.optimizers = _optimizers(self.sam, self.head, settings)
        self.steps = 0
        self.trained_s = 0.0
        self.smooth: dict[str, float] = {}

    @property
    def progress(self) -> float:
        """Share of the run that is done, 0 to 1."""
        return min(1.0, self.trained_s / (60 * self.settings.minutes))

    def run(self, on_step: Callable[[Trainer], None]) -> None:
        """Train until the minutes are over, with snapshots and a validation line in between."""
        settings = self.settings
        store = SceneStore(settings.work / "scenes", 0, settings.num_scenes, NANO.image_size)
        store.start_rendering()
        next_snapshot_s = self.trained_s + 60 * settings.snapshot_minutes
        batches = store.batches(settings.batch_size, settings.seed, self.steps)
        try:
            while self.progress < 1.0:
                started = time.monotonic()
                self._step(next(batches))
                self.trained_s += time.monotonic() - started
                on_step(self)
                if next_snapshot_s <= self.trained_s and self.progress < 1.0:
                    self.snapshot()
                    next_snapshot_s = self.trained_s + 60 * settings.snapshot_minutes
        finally:
            store.stop_rendering()
        self.snapshot()

    def snapshot(self) -> Quality:
        """Save the state to resume from, save the averaged weights as a checkpoint and validate them."""
        settings = self.settings
        settings.work.mkdir(parents=True, exist_ok=True)
        with Disk().replacement(settings.work / "state.pt") as partial:
            torch.save(self._state(), partial)
        averaged = build_sam(NANO)
        averaged.load_state_dict(self.average)
        save_sam(averaged, NANO, settings.out)
        quality = measure(SamSegmenter.load(settings.out), VALIDATION_SEEDS[: settings.validation_scenes])
        line = {
            "minutes": round(self.trained_s / 60, 1),
            "steps": self.steps,
            "training": self.smooth,
            **asdict(quality),
        }
        with (settings.work / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")
        return quality

    def resume(self) -> bool:
        """Continue from the last snapshot in the work folder; return False when there is none."""
        path = self.settings.work / "state.pt"
        if not path.exists():
            return False
        state = torch.load(path, map_location=self.sam.device, weights_only=True)
        self.sam.load_state_dict(state["sam"])
        self.head.load_state_dict(state["head"])
        self.average = state["average"]
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.steps, self.trained_s, self.smooth = state["steps"], state["trained_s"], state["smooth"]
        return True

    def _state(self) -> dict[str, Any]:
        return {
            "sam": self.sam.state_dict(),
            "head": self.head.state_dict(),
            "average": self.average,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "steps": self.steps,
            "trained_s": self.trained_s,
            "smooth": self.smooth,
        }

    def _step(self, scenes: list[Any]) -> None:
        rng = np.random.default_rng([self.settings.seed, 1, self.steps])
        if self.steps % self.settings.whole_every:
            views = [object_view(scene, NANO.patch_size, NANO.window_size, rng) for scene in scenes]
            plan = CROP_PLAN
        else:
            views, plan = [View(scene) for scene in scenes[: self.settings.whole_batch_size]], WHOLE_PLAN
        report = train_step(self.sam, self.half, self.head, views, plan, rng)
        factor = _schedule(self.progress)
        peaks = (self.settings.matrix_lr, self.settings.other_lr)
        for optimizer, peak in zip(self.optimizers, peaks, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = peak * factor
            optimizer.step()
            optimizer.zero_grad()
        self.steps += 1
        self._update_average()
        for name, value in asdict(report).items():
            self.smooth[name] = _SMOOTHING * self.smooth.get(name, value) + (1 - _SMOOTHING) * value

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(_EMA_DECAY, (1 + self.steps) / (10 + self.steps))
        for name, value in self.sam.state_dict().items():
            self.average[name].lerp_(value, 1 - decay)


def _optimizers(sam: nn.Module, head: nn.Module, settings: TrainSettings) -> list[torch.optim.Optimizer]:
    """Make Muon for the matrices inside the network and AdamW for everything else."""
    matrices: list[Tensor] = []
    others: list[Tensor] = list(head.parameters())
    for name, parameter in sam.named_parameters():
        is_hidden = parameter.ndim == 2 and min(parameter.shape) >= 8
        is_table = "rel_pos" in name or "embed" in name or "tokens" in name or "iou_token" in name
        (matrices if is_hidden and not is_table else others).append(parameter)
    return [
        torch.optim.Muon(
            matrices, lr=settings.matrix_lr, weight_decay=settings.weight_decay, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(others, lr=settings.other_lr, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def _schedule(progress: float) -> float:
    """Return the factor of the learning rate: a linear warm-up, then a cosine down to a fiftieth."""
    if progress < _WARM_UP:
        return max(progress / _WARM_UP, 0.02)
    share = (progress - _WARM_UP) / (1 - _WARM_UP)
    return _FINAL_LR + (1 - _FINAL_LR) * 0.5 * (1 + math.cos(math.pi * share))


__all__ = ["StepReport", "TrainSettings", "Trainer"]
