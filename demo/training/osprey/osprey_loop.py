"""Parts that both trainings share: a time budget, optimisers, averaged weights, snapshots to resume from."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from registry.atomic_writes import Disk

_WARMUP = 0.04  # share of the stage
_FLOOR = 0.02  # of the peak learning rate, at the end


@dataclass
class Budget:
    """The time of a stage in minutes, over all its resumed runs.

    The learning rate follows the share of the budget that is used, so a slower machine trains fewer steps but
    always completes the schedule.
    """

    minutes: float
    used_s: float = 0.0
    _resumed_at_s: float = field(default_factory=time.monotonic)

    @property
    def progress(self) -> float:
        """Share of the budget that is used, 0 to 1."""
        return min(1.0, self.elapsed_s / (60 * self.minutes))

    @property
    def elapsed_s(self) -> float:
        """Seconds used, earlier runs included."""
        return self.used_s + time.monotonic() - self._resumed_at_s

    @property
    def rate(self) -> float:
        """Current factor of the learning rate: linear warm-up, then a cosine."""
        if self.progress < _WARMUP:
            return max(0.02, self.progress / _WARMUP)
        angle = math.pi * (self.progress - _WARMUP) / (1 - _WARMUP)
        return _FLOOR + (1 - _FLOOR) * 0.5 * (1 + math.cos(angle))


class Optimizers:
    """Muon for the matrices inside the network, AdamW for everything else (tables, heads, convolutions, vectors).

    Muon's updates are scaled to the size of AdamW's, so both use one learning rate.
    """

    def __init__(self, named: Iterable[tuple[str, nn.Parameter]], lr: float, adam_only: tuple[str, ...] = ()) -> None:
        matrices: list[nn.Parameter] = []
        rest: list[nn.Parameter] = []
        for name, parameter in named:
            if not parameter.requires_grad:
                continue
            plain = parameter.ndim != 2 or any(part in name for part in adam_only)
            (rest if plain else matrices).append(parameter)
        self.lr = lr
        self.parameters = matrices + rest
        self.all: list[torch.optim.Optimizer] = [torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.98), weight_decay=0.0)]
        if matrices:
            self.all.append(torch.optim.Muon(matrices, lr=lr, weight_decay=0.02, adjust_lr_fn="match_rms_adamw"))

    def step(self, rate: float) -> None:
        """Update once at `rate` times the peak learning rate and clear the gradients."""
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for optimizer in self.all:
            for group in optimizer.param_groups:
                group["lr"] = self.lr * rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def state(self) -> list[dict[str, Any]]:
        """Return the optimisers' states."""
        return [optimizer.state_dict() for optimizer in self.all]

    def load(self, states: list[dict[str, Any]]) -> None:
        """Restore what `state` returned."""
        for optimizer, state in zip(self.all, states, strict=True):
            optimizer.load_state_dict(state)


class Average:
    """Exponential moving average of a module's trained parameters."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.values = {name: p.detach().clone() for name, p in module.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move the averages towards the module; fast at first, so that the random start is forgotten."""
        self.steps += 1
        decay = min(self.decay, self.steps / (self.steps + 10))
        named = dict(module.named_parameters())
        torch._foreach_lerp_([*self.values.values()], [named[name].detach() for name in self.values], 1 - decay)

    @torch.no_grad()
    def swap(self, module: nn.Module) -> None:
        """Exchange the module's parameters and the averages; a second call undoes it."""
        for name, parameter in module.named_parameters():
            if name in self.values:
                held = parameter.detach().clone()
                parameter.copy_(self.values[name])
                self.values[name].copy_(held)


def save_state(path: Path, **parts: Any) -> None:
    """Write a snapshot to resume from; a stop while writing keeps the one before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with Disk().replacement(path) as partial:
        torch.save(parts, partial)


def load_state(path: Path) -> dict[str, Any] | None:
    """Read what `save_state` wrote, or return None. Tensors and plain values only."""
    return torch.load(path, weights_only=True) if path.exists() else None


def total(losses: dict[str, Tensor]) -> Tensor:
    """Add named losses."""
    return torch.stack([loss.float() for loss in losses.values()]).sum()
