"""Stage 0, in place of CLIP: the ConvNeXt is trained on the demo world, then stays frozen as in the reference.

Two kinds of temporary linear heads supervise it: on the cells of its levels (what is drawn here, to which object it
belongs, where that object is, what lies around it) and on the features pooled under masks as the mask extractor pools
them. The answers to the decoder's questions are then nearly linear in the tower's features, as they are with the
pretrained CLIP tower of the released model.

# B images, C channels, G grid side of a level, R regions, N neighbour statements
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from demo.training.osprey.depthwise import fast_depthwise
from demo.training.osprey.labels import NEIGHBOUR_BITS, TARGET_SIZES
from demo.training.osprey.osprey_loop import Average, Budget, Optimizers, load_state, save_state, total
from demo.training.osprey.osprey_scenes import SceneCache
from demo.training.osprey.tower_data import (
    CELL_TARGETS,
    PLACE_LEVELS,
    PLACE_SIZE,
    REGION_TARGETS,
    TowerData,
    TowerSample,
)
from osprey_model.config import LEVELS, OspreyConfig
from osprey_model.modeling.mask_extractor import mask_pool

_BATCH, _LEARNING_RATE = 8, 5e-3
_SAVE_EVERY_S = 120
_NEIGHBOURS = "neighbours"
_PLACE = "place"
# Factors that scale the losses of the regressions and of the many neighbour statements to the size of the others.
_OWN_PLACE_WEIGHT, _BOX_WEIGHT, _NEIGHBOUR_WEIGHT = 8.0, 4.0, 4.0


class Readout(nn.Module):
    """One linear layer whose output is cut into named pieces."""

    def __init__(self, width: int, sizes: Mapping[str, int]) -> None:
        super().__init__()
        self.sizes = dict(sizes)
        self.linear = nn.Linear(width, sum(self.sizes.values()))

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """Return the pieces of the output by name."""
        pieces = self.linear(features).float().split(list(self.sizes.values()), dim=-1)
        return dict(zip(self.sizes, pieces, strict=True))


class TowerHeads(nn.Module):
    """The linear heads on cells and regions. They are dropped after the stage."""

    def __init__(self, config: OspreyConfig) -> None:
        super().__init__()
        dims = dict(zip(LEVELS, config.vision_dims, strict=True))
        cell_sizes = {level: {name: TARGET_SIZES[name] for name in names} for level, names in CELL_TARGETS.items()}
        for level in PLACE_LEVELS:
            cell_sizes[level] |= {_PLACE: PLACE_SIZE, _NEIGHBOURS: NEIGHBOUR_BITS}
        region_sizes = {name: TARGET_SIZES[name] for name in REGION_TARGETS} | {_NEIGHBOURS: NEIGHBOUR_BITS}
        self.cells = nn.ModuleDict({level: Readout(dims[level], sizes) for level, sizes in cell_sizes.items()})
        self.regions = Readout(sum(dims.values()), region_sizes)

    def forward(self, levels: Mapping[str, Tensor], batch: TowerSample) -> dict[str, Tensor]:
        """Compute the losses by name."""
        losses: dict[str, Tensor] = {}
        for level, names in CELL_TARGETS.items():
            outputs = self.cells[level](levels[level].permute(0, 2, 3, 1))
            for name in names:
                key = f"{level}.{name}"
                losses[key] = functional.cross_entropy(outputs[name].flatten(0, 2), batch.cells[key].flatten())
            if level in PLACE_LEVELS:
                losses |= {f"{level}.{name}": loss for name, loss in _place_losses(level, outputs, batch).items()}
        outputs = self.read_regions(levels, batch)
        for name in REGION_TARGETS:
            target = batch.region_classes[name].flatten()
            losses[f"region.{name}"] = functional.cross_entropy(outputs[name].flatten(0, 1), target)
        losses["region.neighbours"] = _NEIGHBOUR_WEIGHT * functional.binary_cross_entropy_with_logits(
            outputs[_NEIGHBOURS], batch.region_neighbours_RN
        )
        return losses

    def read_regions(self, levels: Mapping[str, Tensor], batch: TowerSample) -> dict[str, Tensor]:
        """Compute logits (B, R, classes) per target, from the mean feature under each mask."""
        pooled = []
        for level in LEVELS:
            images = zip(levels[level], batch.region_cells[level], strict=True)
            pooled.append(torch.stack([mask_pool(feature_CGG, cells_RGG) for feature_CGG, cells_RGG in images]))
        outputs: dict[str, Tensor] = self.regions(torch.cat(pooled, dim=-1))
        return outputs


def _place_losses(level: str, outputs: Mapping[str, Tensor], batch: TowerSample) -> dict[str, Tensor]:
    """Compute the losses of a cell's own place, its object's box, and that object's neighbours."""
    inside, wanted = batch.inside[level], batch.places[level]
    place, neighbours = outputs[_PLACE], outputs[_NEIGHBOURS]
    own = functional.mse_loss(place[..., :2], wanted[..., :2])
    box = functional.smooth_l1_loss(place[inside][:, 2:], wanted[inside][:, 2:], beta=0.05)
    around = functional.binary_cross_entropy_with_logits(neighbours[inside], batch.neighbours[level][inside])
    return {
        "own_place": _OWN_PLACE_WEIGHT * own,
        "object_box": _BOX_WEIGHT * box,
        _NEIGHBOURS: _NEIGHBOUR_WEIGHT * around,
    }


@torch.no_grad()
def region_accuracy(tower: nn.Module, heads: TowerHeads, data: TowerData, count: int) -> dict[str, float]:
    """Compute the share of right predictions on the first `count` scenes' regions, per target."""
    right: dict[str, list[float]] = {name: [] for name in (*REGION_TARGETS, _NEIGHBOURS)}
    generator, device = np.random.default_rng(0), next(tower.parameters()).device
    for start in range(0, count, 16):
        batch = data.batch(list(range(start, min(start + 16, count))), generator).to(device)
        with torch.autocast(device.type, torch.bfloat16):
            logits = heads.read_regions(tower(batch.image_3SS), batch)
        for name in REGION_TARGETS:
            right[name].append((logits[name].argmax(-1) == batch.region_classes[name]).float().mean().item())
        # Of all neighbour statements only the one with the highest probability is checked.
        surest = logits[_NEIGHBOURS].argmax(-1, keepdim=True)
        right[_NEIGHBOURS].append(batch.region_neighbours_RN.gather(-1, surest).mean().item())
    return {name: float(np.mean(values)) for name, values in right.items()}


def train_tower(
    tower: nn.Module, config: OspreyConfig, scenes: SceneCache, held_out: SceneCache, state_path: Path, minutes: float
) -> Iterator[tuple[float, str]]:
    """Train `tower` in place; yield progress (0 to 1) and lines for a log.

    Resumes from `state_path`. Every two minutes it saves there and evaluates unseen scenes.
    """
    device = next(tower.parameters()).device
    heads = TowerHeads(config).to(device)
    learner = nn.ModuleDict({"tower": tower.to(memory_format=torch.channels_last), "heads": heads})
    optimizers = Optimizers(learner.named_parameters(), _LEARNING_RATE, adam_only=("heads",))
    average, budget, step = Average(learner, decay=0.998), Budget(minutes), 0
    if state := load_state(state_path):
        learner.load_state_dict(state["learner"])
        optimizers.load(state["optimizers"])
        average.values, average.steps = state["average"], state["step"]
        budget.used_s, step = state["used_s"], state["step"]
    data, unseen = TowerData(scenes, config.image_size), TowerData(held_out, config.image_size)
    batches = data.batches(_BATCH, np.random.default_rng((0, step)))
    saved_at_s = budget.elapsed_s
    while budget.progress < 1:
        batch = next(batches).to(device)
        fast = fast_depthwise(tower) if device.type == "cpu" else nullcontext()
        with fast, torch.autocast(device.type, torch.bfloat16):
            losses = heads(tower(batch.image_3SS.contiguous(memory_format=torch.channels_last)), batch)
        torch.autograd.backward(total(losses))
        optimizers.step(budget.rate)
        average.update(learner)
        step += 1
        if step % 50 == 0:
            parts = " ".join(f"{name} {loss.item():.2f}" for name, loss in losses.items())
            yield budget.progress, f"tower step {step} {budget.elapsed_s:.0f}s: {parts}"
        if budget.elapsed_s - saved_at_s > _SAVE_EVERY_S or budget.progress >= 1:
            saved_at_s = budget.elapsed_s
            save_state(
                state_path,
                learner=learner.state_dict(),
                optimizers=optimizers.state(),
                average=average.values,
                step=step,
                used_s=budget.elapsed_s,
            )
            average.swap(learner)
            accuracy = region_accuracy(tower, heads, unseen, len(held_out.records))
            average.swap(learner)
            shares = " ".join(f"{name} {100 * value:.1f}%" for name, value in accuracy.items())
            yield budget.progress, f"tower step {step}, unseen regions: {shares}"
    average.swap(learner)
