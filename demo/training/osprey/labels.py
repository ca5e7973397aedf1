"""Per-cell and per-region targets of the tower's training, looked up from a scene's region map.

# B scenes, G grid side, R regions, A = 256 values of a region map
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from demo.scenes import CATALOG, COLORS, MATERIALS
from demo.scenes.grammar import PART_NAMES
from demo.training.osprey.osprey_questions import WHOLE
from demo.training.osprey.osprey_scenes import RegionRecord, SceneRecord

UNKNOWN = -100  # cross-entropy leaves these cells out
CATEGORIES = sorted(CATALOG)
COLOR_NAMES = list(COLORS)
MATERIAL_NAMES = sorted(MATERIALS)
RELATIONS = ("left", "right", "above", "below")
PARTS = [WHOLE, *PART_NAMES]
# 0 is background in every one of these, names count from 1.
TARGET_SIZES = {
    "category": len(CATEGORIES) + 1,
    "part": len(PARTS) + 1,
    "color": len(COLOR_NAMES) + 1,
    "material": len(MATERIAL_NAMES) + 1,
    "object_color": len(COLOR_NAMES) + 1,
    "object_material": len(MATERIAL_NAMES) + 1,
}
# "Is there a <category or colour> of which this region is <relation>?", one bit each.
NEIGHBOUR_BITS = len(RELATIONS) * (len(CATEGORIES) + len(COLOR_NAMES))


@dataclass(frozen=True, slots=True)
class SceneTables:
    """Lookup tables of one scene: value of its region map -> target."""

    targets: dict[str, NDArray[np.int64]]  # each (A,)
    object_of: NDArray[np.int64]  # (A,), -1 = background
    neighbours: NDArray[np.float32]  # (objects, NEIGHBOUR_BITS)


def scene_tables(record: SceneRecord) -> SceneTables:
    """Make the lookup tables of one scene. Cells of parts too small to be listed have only their object's targets."""
    targets: dict[str, NDArray[np.int64]] = {name: np.zeros(256, np.int64) for name in TARGET_SIZES}
    object_of: NDArray[np.int64] = np.full(256, -1, np.int64)
    objects = record.regions[: record.num_objects]
    for obj in objects:
        values = list(obj.leaf_values)
        object_of[values] = obj.object_idx
        targets["category"][values] = 1 + CATEGORIES.index(obj.category)
        targets["object_color"][values] = 1 + COLOR_NAMES.index(obj.color)
        targets["object_material"][values] = 1 + MATERIAL_NAMES.index(obj.material)
        for name in ("part", "color", "material"):
            targets[name][values] = UNKNOWN
    for part in record.regions[record.num_objects :]:  # sub-parts come after their part and overwrite its cells
        values = list(part.leaf_values)
        targets["part"][values] = 1 + PARTS.index(part.part)
        targets["color"][values] = 1 + COLOR_NAMES.index(part.color)
        targets["material"][values] = 1 + MATERIAL_NAMES.index(part.material)
    return SceneTables(targets, object_of, np.stack([_neighbour_bits(obj, objects) for obj in objects]))


def region_targets(region: RegionRecord) -> dict[str, int]:
    """Return the class numbers of one region; 0, the background, is never used."""
    return {
        "category": 1 + CATEGORIES.index(region.category),
        "part": 1 + PARTS.index(region.part),
        "color": 1 + COLOR_NAMES.index(region.color),
        "material": 1 + MATERIAL_NAMES.index(region.material),
    }


def read_cells(region_map_HW: NDArray[np.uint8], leaf_values: Sequence[int], grid: int) -> Tensor:
    """Return which cells a region covers, float (G, G), as the mask extractor reads them.

    The mask extractor's bilinear read uses the four pixels around a cell's centre. So does this function, without
    making the mask.
    """
    inside = np.zeros(256, np.bool_)
    inside[list(leaf_values)] = True
    step_y, step_x = region_map_HW.shape[0] // grid, region_map_HW.shape[1] // grid
    covered = np.zeros((grid, grid), np.bool_)
    for y in (step_y // 2 - 1, step_y // 2):
        for x in (step_x // 2 - 1, step_x // 2):
            covered |= inside[region_map_HW[y::step_y, x::step_x]]
    return torch.from_numpy(covered.astype(np.float32))


def _neighbour_bits(obj: RegionRecord, objects: Sequence[RegionRecord]) -> NDArray[np.float32]:
    """Set a bit for every relation of an object to a category or a colour."""
    bits = np.zeros((len(RELATIONS), len(CATEGORIES) + len(COLOR_NAMES)), np.float32)
    for relation, other in obj.relations:
        row = bits[RELATIONS.index(relation)]
        row[CATEGORIES.index(objects[other].category)] = 1
        row[len(CATEGORIES) + COLOR_NAMES.index(objects[other].color)] = 1
    return bits.ravel()
