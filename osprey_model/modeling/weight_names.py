"""The names of weights: conversion between the reference's names and ours, and checks that a state dict is complete."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from osprey_model.config import CONFIG_FILE, OspreyConfig

# Buffers that transformers 4.31 saved; current versions compute them.
_ROTARY_BUFFER = re.compile(r"^model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq$")
# transformers 4.31 renames `gamma` to `weight` while loading, so checkpoints that it has saved again have `weight`.
LAYER_SCALE_ALIAS = re.compile(r"^(model\.vision_tower\..*\.blocks\.\d+)\.weight$")


class CheckpointError(ValueError):
    """A checkpoint is not complete, not readable, or of another architecture."""


def from_reference(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert the reference's names to ours: drop rotary buffers, and rename the layer scale back to `gamma`."""
    return {
        LAYER_SCALE_ALIAS.sub(r"\1.gamma", name): tensor
        for name, tensor in state.items()
        if not _ROTARY_BUFFER.match(name)
    }


def to_reference(state: Mapping[str, Tensor], config: OspreyConfig) -> dict[str, Tensor]:
    """Convert our names to the reference's: add the rotary buffers of transformers 4.31, one per decoder layer."""
    device = next(iter(state.values())).device
    steps = torch.arange(0, config.head_dim, 2, dtype=torch.float32, device=device)
    inv_freq = 1.0 / (config.rope_theta ** (steps / config.head_dim))
    buffers = {
        f"model.layers.{idx}.self_attn.rotary_emb.inv_freq": inv_freq.clone() for idx in range(config.num_hidden_layers)
    }
    return {**state, **buffers}


def check_complete(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor], *, source: str) -> None:
    """Check that two state dicts have the same names and shapes.

    Args:
        wanted: of the model.
        given: of the checkpoint.
        source: name of the checkpoint in the error.

    Raises:
        CheckpointError: they differ; up to eight names of each kind are listed.
    """
    shared = wanted.keys() & given.keys()
    problems = {
        "missing": sorted(wanted.keys() - given.keys()),
        "unexpected": sorted(given.keys() - wanted.keys()),
        "misshapen": [
            f"{name} (expected {tuple(wanted[name].shape)}, got {tuple(given[name].shape)})"
            for name in sorted(shared)
            if wanted[name].shape != given[name].shape
        ],
    }
    raise_problems(problems, source=source)


def raise_problems(problems: Mapping[str, list[str]], *, source: str) -> None:
    """Raise `CheckpointError` if any kind of problem has an entry; up to eight of each are listed."""
    if any(problems.values()):
        listed = "; ".join(f"{len(names)} {kind}: {_shortened(names)}" for kind, names in problems.items() if names)
        raise CheckpointError(f"{source} does not fit this Osprey configuration: {listed}. Check its {CONFIG_FILE}")


def _shortened(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
