"""Stage 0, in place of CLIP: the ConvNeXt learns to see the demo world, then stays frozen as in the reference.

Two kinds of throw-away linear heads tell it what matters: on the cells of its levels (what is drawn here,
which object is it part of, where is that object, what lies around it) and on the features pooled under
masks exactly as the mask extractor pools them. What the decoder will be asked is then a nearly linear
readout of what the tower gives, which is what a pretrained CLIP tower gives the released model.

# B images, C channels, G grid side of a level, R regions, S image side
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from demo.training.osprey_labels import (
    NEIGHBOUR_BITS,
    RELATIONS,
    TARGET_SIZES,
    SceneTables,
    read_cells,
    region_targets,
    scene_tables,
)
from demo.training.osprey_loop import Average, Budget, Optimizers, load_state, save_state, total
from demo.training.osprey_scenes import SceneCache
from osprey_model.config import LEVELS, OspreyConfig
from osprey_model.modeling.mask_extractor import mask_pool

# What each level's cells are asked. Coarse levels see whole objects, fine ones what is drawn at the spot.
CELL_TARGETS = {
    "res2": ("part", "color"),
    "res3": ("category", "part", "color", "material"),
    "res4": ("category", "part", "color", "object_color", "object_material"),
    "res5": ("category", "object_color", "object_material"),
}
PLACE_LEVELS = ("res4", "res5")  # their cells also know their own place, their object's box and its neighbours
REGION_TARGETS = ("category", "part", "color", "material")
_PLACE_SIZE = 6  # own x, y; the object's left, top, right, bottom; all 0..1
_REGIONS_PER_IMAGE = 10
_BATCH, _LEARNING_RATE = 8, 5e-3
_SAVE_EVERY_S = 120


class DepthwiseBf16(torch.autograd.Function):
    """7x7 depthwise convolution in bfloat16, three times faster backward on a CPU than oneDNN's own.

    The input's gradient is a convolution with the turned kernel; the kernel's gradient is fastest in
    float32 with channels last.
    """

    @staticmethod
    def forward(ctx, input_BCHW: Tensor, weight: Tensor, bias: Tensor) -> Tensor:  # noqa: ANN001
        input_BCHW = input_BCHW.to(torch.bfloat16).contiguous(memory_format=torch.channels_last)
        weight = weight.to(torch.bfloat16)
        ctx.save_for_backward(input_BCHW, weight)
        return functional.conv2d(input_BCHW, weight, bias.to(torch.bfloat16), padding=3, groups=weight.shape[0])

    @staticmethod
    def backward(ctx, grad_BCHW: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # noqa: ANN001
        input_BCHW, weight = ctx.saved_tensors
        channels = weight.shape[0]
        grad_BCHW = grad_BCHW.to(torch.bfloat16).contiguous(memory_format=torch.channels_last)
        grad_input = functional.conv2d(grad_BCHW, weight.flip(2, 3), padding=3, groups=channels)
        grad_BCHW = grad_BCHW.float()
        grad_weight = torch.nn.grad.conv2d_weight(
            input_BCHW.float(), weight.shape, grad_BCHW, padding=3, groups=channels
        )
        return grad_input, grad_weight, grad_BCHW.sum((0, 2, 3))


@contextmanager
def fast_depthwise(tower: nn.Module) -> Iterator[None]:
    """Route every depthwise convolution of `tower` through `DepthwiseBf16` for a while (training on a CPU)."""
    depthwise = [module for module in tower.modules() if isinstance(module, nn.Conv2d) and module.groups > 1]
    for conv in depthwise:
        conv.forward = partial(_run_depthwise, conv)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for conv in depthwise:
            del conv.forward


def _run_depthwise(conv: nn.Conv2d, input_BCHW: Tensor) -> Tensor:
    return DepthwiseBf16.apply(input_BCHW, conv.weight, conv.bias)


@dataclass(frozen=True, slots=True)
class TowerBatch:
    """Images and their targets."""

    images_B3SS: Tensor
    cell_targets: dict[tuple[str, str], Tensor]  # (level, target) -> (B, G, G)
    places: dict[str, Tensor]  # level -> (B, G, G, 6)
    neighbours: dict[str, Tensor]  # level -> (B, G, G, bits)
    object_cells: dict[str, Tensor]  # level -> (B, G, G) bool
    region_cells: dict[str, Tensor]  # level -> (B, R, G, G)
    region_classes: dict[str, Tensor]  # target -> (B, R)
    region_neighbours_BRN: Tensor

    def to(self, device: torch.device) -> TowerBatch:
        """All tensors on a device."""
        values = (getattr(self, field.name) for field in dataclasses.fields(self))
        return TowerBatch(
            *({k: v.to(device) for k, v in x.items()} if isinstance(x, dict) else x.to(device) for x in values)
        )


class TowerHeads(nn.Module):
    """The linear readouts. They are thrown away after the stage."""

    def __init__(self, config: OspreyConfig) -> None:
        super().__init__()
        dims = dict(zip(LEVELS, config.vision_dims, strict=True))
        cell_sizes = {level: [TARGET_SIZES[name] for name in names] for level, names in CELL_TARGETS.items()}
        for level in PLACE_LEVELS:
            cell_sizes[level] = [*cell_sizes[level], _PLACE_SIZE, NEIGHBOUR_BITS]
        self.cell_sizes = cell_sizes
        self.cells = nn.ModuleDict({level: nn.Linear(dims[level], sum(sizes)) for level, sizes in cell_sizes.items()})
        self.region_sizes = [*(TARGET_SIZES[name] for name in REGION_TARGETS), NEIGHBOUR_BITS]
        self.regions = nn.Linear(sum(dims.values()), sum(self.region_sizes))

    def forward(self, levels: dict[str, Tensor], batch: TowerBatch) -> dict[str, Tensor]:
        """Named losses."""
        losses: dict[str, Tensor] = {}
        for level, names in CELL_TARGETS.items():
            outputs = self.cells[level](levels[level].permute(0, 2, 3, 1)).float().split(self.cell_sizes[level], -1)
            for name, logits in zip(names, outputs, strict=False):
                target = batch.cell_targets[level, name].flatten()
                losses[f"{level}.{name}"] = functional.cross_entropy(logits.flatten(0, 2), target)
            if level in PLACE_LEVELS:
                inside = batch.object_cells[level]
                losses[f"{level}.own_place"] = 8 * functional.mse_loss(
                    outputs[-2][..., :2], batch.places[level][..., :2]
                )
                boxes = functional.smooth_l1_loss(
                    outputs[-2][inside][:, 2:], batch.places[level][inside][:, 2:], beta=0.05
                )
                losses[f"{level}.object_box"] = 4 * boxes
                losses[f"{level}.neighbours"] = 4 * functional.binary_cross_entropy_with_logits(
                    outputs[-1][inside], batch.neighbours[level][inside]
                )
        logits = self.read_regions(levels, batch)
        for name in REGION_TARGETS:
            losses[f"region.{name}"] = functional.cross_entropy(
                logits[name].flatten(0, 1), batch.region_classes[name].flatten()
            )
        losses["region.neighbours"] = 4 * functional.binary_cross_entropy_with_logits(
            logits["neighbours"], batch.region_neighbours_BRN
        )
        return losses

    def read_regions(self, levels: dict[str, Tensor], batch: TowerBatch) -> dict[str, Tensor]:
        """Target name -> logits (B, R, classes), from the mean feature under each mask."""
        pooled = [
            torch.stack(
                [
                    mask_pool(feature, cells)
                    for feature, cells in zip(levels[level], batch.region_cells[level], strict=True)
                ]
            )
            for level in LEVELS
        ]
        outputs = self.regions(torch.cat(pooled, dim=-1)).float().split(self.region_sizes, -1)
        return dict(zip((*REGION_TARGETS, "neighbours"), outputs, strict=True))


class TowerData:
    """Random batches of a scene cache, half of the images mirrored."""

    def __init__(self, cache: SceneCache, image_size: int) -> None:
        self.cache = cache
        self.grids = {level: image_size // stride for level, stride in zip(LEVELS, (4, 8, 16, 32), strict=True)}
        self.tables: list[SceneTables] = [scene_tables(record) for record in cache.records]

    def batches(self, batch_size: int, generator: np.random.Generator) -> Iterator[TowerBatch]:
        """Endless shuffled passes."""
        while True:
            order = generator.permutation(len(self.cache.records))
            for start in range(0, len(order) - batch_size + 1, batch_size):
                picked = order[start : start + batch_size].tolist()
                yield self.batch(picked, generator, mirror=True)

    def batch(self, picked: list[int], generator: np.random.Generator, *, mirror: bool) -> TowerBatch:
        """Images `picked` with targets; `_REGIONS_PER_IMAGE` random regions each, objects preferred."""
        images, cells, places, neighbours, inside = [], {}, {}, {}, {}
        region_cells: dict[str, list[Tensor]] = {level: [] for level in LEVELS}
        classes: dict[str, list[list[int]]] = {name: [] for name in REGION_TARGETS}
        region_neighbours = []
        for idx in picked:
            flip = mirror and bool(generator.random() < 0.5)
            step = -1 if flip else 1
            region_map = np.ascontiguousarray(self.cache.region_maps_NHW[idx][:, ::step])
            images.append(np.ascontiguousarray(self.cache.images_N3SS[idx][..., ::step]))
            tables, record = self.tables[idx], self.cache.records[idx]
            bits = _mirrored(tables.neighbours) if flip else tables.neighbours
            boxes = _object_boxes(region_map, tables, record.num_objects)
            for level, grid in self.grids.items():
                at_cells = _center_values(region_map, grid)
                for name in CELL_TARGETS[level]:
                    cells.setdefault((level, name), []).append(torch.from_numpy(tables.targets[name][at_cells]))
                if level in PLACE_LEVELS:
                    owner = tables.object_of[at_cells]
                    own = (np.stack(np.mgrid[:grid, :grid][::-1], -1) + 0.5) / grid
                    places.setdefault(level, []).append(
                        torch.from_numpy(np.concatenate([own, boxes[owner]], -1).astype(np.float32))
                    )
                    neighbours.setdefault(level, []).append(torch.from_numpy(bits[owner]))
                    inside.setdefault(level, []).append(torch.from_numpy(owner >= 0))
            chosen = generator.integers(0, len(record.regions), _REGIONS_PER_IMAGE)
            chosen[: record.num_objects] = np.arange(record.num_objects)
            regions = [record.regions[number] for number in chosen]
            for level, grid in self.grids.items():
                region_cells[level].append(
                    torch.stack([read_cells(region_map, region.leaf_values, grid) for region in regions])
                )
            found = [region_targets(region) for region in regions]
            for name in REGION_TARGETS:
                classes[name].append([target[name] for target in found])
            region_neighbours.append(torch.from_numpy(bits[[region.object_idx for region in regions]]))
        return TowerBatch(
            images_B3SS=torch.from_numpy(np.stack(images)).float(),
            cell_targets={key: torch.stack(value) for key, value in cells.items()},
            places={key: torch.stack(value) for key, value in places.items()},
            neighbours={key: torch.stack(value) for key, value in neighbours.items()},
            object_cells={key: torch.stack(value) for key, value in inside.items()},
            region_cells={key: torch.stack(value) for key, value in region_cells.items()},
            region_classes={key: torch.tensor(value) for key, value in classes.items()},
            region_neighbours_BRN=torch.stack(region_neighbours),
        )


def _center_values(region_map_HW: NDArray[np.uint8], grid: int) -> NDArray[np.uint8]:
    step_y, step_x = region_map_HW.shape[0] // grid, region_map_HW.shape[1] // grid
    return region_map_HW[step_y // 2 :: step_y, step_x // 2 :: step_x]


def _mirrored(bits_ON: NDArray[np.float32]) -> NDArray[np.float32]:
    rows = bits_ON.reshape(len(bits_ON), len(RELATIONS), -1)
    order = [RELATIONS.index({"left": "right", "right": "left"}.get(name, name)) for name in RELATIONS]
    return rows[:, order].reshape(bits_ON.shape)


def _object_boxes(region_map_HW: NDArray[np.uint8], tables: SceneTables, num_objects: int) -> NDArray[np.float64]:
    """Left, top, right, bottom of every object in 0..1; the last row (index -1, background) is zero."""
    small = tables.object_of[region_map_HW[::4, ::4]]
    height, width = small.shape
    boxes = np.zeros((num_objects + 1, 4))
    for idx in range(num_objects):
        rows, columns = np.flatnonzero((small == idx).any(1)), np.flatnonzero((small == idx).any(0))
        boxes[idx] = columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height
    return boxes


@torch.no_grad()
def region_accuracy(tower: nn.Module, heads: TowerHeads, data: TowerData, count: int) -> dict[str, float]:
    """Share of right readouts of the first `count` scenes' regions, target by target."""
    right: dict[str, list[float]] = {name: [] for name in (*REGION_TARGETS, "neighbours")}
    generator, device = np.random.default_rng(0), next(tower.parameters()).device
    for start in range(0, count, 16):
        batch = data.batch(list(range(start, min(start + 16, count))), generator, mirror=False).to(device)
        with torch.autocast(batch.images_B3SS.device.type, torch.bfloat16):
            logits = heads.read_regions(tower(batch.images_B3SS), batch)
        for name in REGION_TARGETS:
            right[name].append((logits[name].argmax(-1) == batch.region_classes[name]).float().mean().item())
        # The surest of all neighbour statements: is it true?
        surest = logits["neighbours"].argmax(-1, keepdim=True)
        right["neighbours"].append(batch.region_neighbours_BRN.gather(-1, surest).mean().item())
    return {name: float(np.mean(values)) for name, values in right.items()}


def train_tower(
    tower: nn.Module, config: OspreyConfig, scenes: SceneCache, held_out: SceneCache, state_path: Path, minutes: float
) -> Iterator[tuple[float, str]]:
    """Train `tower` in place; yields progress in 0..1 and lines for a log.

    Resumes from `state_path` and saves there every two minutes, when it also reads out unseen scenes.
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
            losses = heads(tower(batch.images_B3SS.contiguous(memory_format=torch.channels_last)), batch)
        total(losses).backward()
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
