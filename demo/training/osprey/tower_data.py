"""Batches for the tower: images, half of them mirrored, with the targets of their cells and regions.

# B images, S image side, G grid side of a level, R regions, N neighbour statements
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from demo.training.osprey.labels import (
    RELATIONS,
    SceneTables,
    read_cells,
    region_targets,
    scene_tables,
)
from demo.training.osprey.osprey_scenes import SceneCache
from osprey_model.config import LEVELS

# The targets of each level's cells. Coarse levels are trained on whole objects, fine ones on what is drawn at the cell.
CELL_TARGETS: dict[str, tuple[str, ...]] = {
    "res2": ("part", "color"),
    "res3": ("category", "part", "color", "material"),
    "res4": ("category", "part", "color", "object_color", "object_material"),
    "res5": ("category", "object_color", "object_material"),
}
PLACE_LEVELS = ("res4", "res5")  # with their own place, their object's box and its neighbours as further targets
REGION_TARGETS = ("category", "part", "color", "material")
PLACE_SIZE = 6  # own x, y; the object's left, top, right, bottom; all 0..1
_REGIONS_PER_IMAGE = 10
_STRIDES = dict(zip(LEVELS, (4, 8, 16, 32), strict=True))


@dataclass(frozen=True, slots=True)
class TowerSample:
    """One image and its targets. In a batch every tensor has a leading B."""

    image_3SS: Tensor
    cells: Mapping[str, Tensor]  # "level.target" -> (G, G) class numbers
    places: Mapping[str, Tensor]  # level -> (G, G, 6)
    neighbours: Mapping[str, Tensor]  # level -> (G, G, N)
    inside: Mapping[str, Tensor]  # level -> (G, G) bool: the cell shows an object
    region_cells: Mapping[str, Tensor]  # level -> (R, G, G)
    region_classes: Mapping[str, Tensor]  # target -> (R,)
    region_neighbours_RN: Tensor

    def to(self, device: torch.device) -> TowerSample:
        """Move all tensors to a device."""
        return _map([self], lambda tensors: tensors[0].to(device))


class TowerData:
    """Random batches of a scene cache."""

    def __init__(self, scenes: SceneCache, image_size: int) -> None:
        self.scenes = scenes
        self.grids = {level: image_size // stride for level, stride in _STRIDES.items()}
        self.tables = [scene_tables(record) for record in scenes.records]

    def batches(self, batch_size: int, generator: np.random.Generator) -> Iterator[TowerSample]:
        """Yield shuffled passes without end."""
        batch_size = min(batch_size, len(self.tables))
        while True:
            order = generator.permutation(len(self.tables))
            for start in range(0, len(order) - batch_size + 1, batch_size):
                yield self.batch(order[start : start + batch_size].tolist(), generator, mirror=True)

    def batch(self, picked: list[int], generator: np.random.Generator, *, mirror: bool = False) -> TowerSample:
        """Make a batch of the scenes `picked`, each mirrored with a probability of one half if `mirror`."""
        samples = [self.sample(idx, generator, mirrored=mirror and bool(generator.random() < 0.5)) for idx in picked]
        return _map(samples, torch.stack)

    def sample(self, idx: int, generator: np.random.Generator, *, mirrored: bool) -> TowerSample:
        """Make the targets of one scene, with all of its objects and some of its parts as regions."""
        step = -1 if mirrored else 1
        region_map = np.ascontiguousarray(self.scenes.region_maps_NHW[idx][:, ::step])
        image = np.array(self.scenes.images_N3SS[idx][..., ::step], dtype=np.float32)
        tables, record = self.tables[idx], self.scenes.records[idx]
        neighbours = _mirrored(tables.neighbours) if mirrored else tables.neighbours
        boxes = _object_boxes(region_map, tables, record.num_objects)
        at_cells = {level: _center_values(region_map, grid) for level, grid in self.grids.items()}
        owners = {level: tables.object_of[at_cells[level]] for level in PLACE_LEVELS}
        chosen = generator.integers(0, len(record.regions), _REGIONS_PER_IMAGE)
        chosen[: record.num_objects] = np.arange(record.num_objects)
        regions = [record.regions[number] for number in chosen]
        classes = [region_targets(region) for region in regions]
        return TowerSample(
            image_3SS=torch.from_numpy(image),
            cells={
                f"{level}.{name}": torch.from_numpy(tables.targets[name][at_cells[level]])
                for level, names in CELL_TARGETS.items()
                for name in names
            },
            places={level: _places(owner, boxes) for level, owner in owners.items()},
            neighbours={level: torch.from_numpy(neighbours[owner]) for level, owner in owners.items()},
            inside={level: torch.from_numpy(owner >= 0) for level, owner in owners.items()},
            region_cells={
                level: torch.stack([read_cells(region_map, region.leaf_values, grid) for region in regions])
                for level, grid in self.grids.items()
            },
            region_classes={name: torch.tensor([found[name] for found in classes]) for name in REGION_TARGETS},
            region_neighbours_RN=torch.from_numpy(neighbours[[region.object_idx for region in regions]]),
        )


def _map(samples: Sequence[TowerSample], combine: Callable[[list[Tensor]], Tensor]) -> TowerSample:
    """Combine samples into one whose every tensor is `combine` of the samples' own."""
    values: list[Any] = []
    for field in dataclasses.fields(TowerSample):
        found = [getattr(sample, field.name) for sample in samples]
        if isinstance(found[0], Tensor):
            values.append(combine(found))
        else:
            values.append({key: combine([mapping[key] for mapping in found]) for key in found[0]})
    return TowerSample(*values)


def _places(owner_GG: NDArray[np.int64], boxes: NDArray[np.float64]) -> Tensor:
    """Return the own place of every cell and the box of the object it shows, (G, G, 6)."""
    rows, columns = np.indices(owner_GG.shape)
    own = (np.stack([columns, rows], axis=-1) + 0.5) / len(owner_GG)
    return torch.from_numpy(np.concatenate([own, boxes[owner_GG]], axis=-1).astype(np.float32))


def _center_values(region_map_HW: NDArray[np.uint8], grid: int) -> NDArray[np.uint8]:
    """Return the region map's value at the centre of every cell, (G, G)."""
    step_y, step_x = region_map_HW.shape[0] // grid, region_map_HW.shape[1] // grid
    return region_map_HW[step_y // 2 :: step_y, step_x // 2 :: step_x]


def _mirrored(bits_ON: NDArray[np.float32]) -> NDArray[np.float32]:
    """Swap left and right in neighbour bits."""
    rows = bits_ON.reshape(len(bits_ON), len(RELATIONS), -1)
    order = [RELATIONS.index({"left": "right", "right": "left"}.get(name, name)) for name in RELATIONS]
    return rows[:, order].reshape(bits_ON.shape)


def _object_boxes(region_map_HW: NDArray[np.uint8], tables: SceneTables, num_objects: int) -> NDArray[np.float64]:
    """Return left, top, right, bottom of every object, 0 to 1; the last row (index -1, background) is zero."""
    small = tables.object_of[region_map_HW[::4, ::4]]
    height, width = small.shape
    boxes = np.zeros((num_objects + 1, 4))
    for idx in range(num_objects):
        rows, columns = np.flatnonzero((small == idx).any(1)), np.flatnonzero((small == idx).any(0))
        boxes[idx] = columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height
    return boxes
