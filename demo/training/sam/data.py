"""Scenes rendered once into compact shards, and the dense targets of one of them.

A scene is stored as the picture at SAM's input size and the region map at full size, from which the soft target of
any region follows.
"""

from __future__ import annotations

import multiprocessing
import os
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from segment_anything.utils.transforms import ResizeLongestSide

from demo.scenes import Scene, SceneObject, ScenePart, make_scene
from registry.atomic_writes import Disk

SCENES_PER_SHARD = 25
PART_CLASSES = 128  # hashed names; a collision is harmless, because only the auxiliary head uses them
NO_LEVEL = -1
LEVELS = 3  # slots 1..3 of SAM's multimask output: sub-part, part, object
_MAX_REGIONS = 96
_WAIT_S = 0.2


@dataclass(frozen=True, slots=True)
class TrainingScene:
    """One scene as training needs it. Values of `region_map` are called leaves; 0 is background.

    Attributes:
        image: uint8 (h, w, 3) at SAM's input size, not padded.
        region_map: uint8 (H, W) at full size.
        levels: int16 (256, 3): per leaf the regions a click on it can mean, smallest first; -1 is none.
        members: bool (R, 256): the leaves each region consists of.
        inner_points: int16 (R, 2): full-size pixels (x, y).
        part_class: uint8 (256,): hashed name of what each leaf shows.
    """

    image: NDArray[np.uint8]
    region_map: NDArray[np.uint8]
    levels: NDArray[np.int16]
    members: NDArray[np.bool_]
    inner_points: NDArray[np.int16]
    part_class: NDArray[np.uint8]

    def flipped(self) -> TrainingScene:
        """Mirror the scene left to right."""
        points = self.inner_points.copy()
        points[:, 0] = self.region_map.shape[1] - 1 - points[:, 0]
        return TrainingScene(
            self.image[:, ::-1], self.region_map[:, ::-1], self.levels, self.members, points, self.part_class
        )


@dataclass(frozen=True, slots=True)
class Targets:
    """The network's targets for one scene, on a grid of cells at SAM's low resolution.

    `coverage` (L, h, w) is the share of each cell that each present leaf covers; `leaves` (L,) are those leaves.
    Soft targets hold where inside a cell the border runs. With hard targets the IoU of parts could not exceed 0.89;
    with soft ones the bound is 0.97.
    """

    leaves: NDArray[np.uint8]
    coverage: NDArray[np.float32]

    def of(self, members: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Return the coverage (N, h, w) of regions given by their leaves (N, 256)."""
        leaf_count, height, width = self.coverage.shape
        flat = members[:, self.leaves].astype(np.float32) @ self.coverage.reshape(leaf_count, -1)
        return flat.reshape(-1, height, width)


def targets_of(scene: TrainingScene, cell_px: int) -> Targets:
    """Compute the coverage of every leaf on cells of `cell_px` full-size pixels."""
    height, width = (side // cell_px for side in scene.region_map.shape)
    leaves, compact = np.unique(scene.region_map, return_inverse=True)
    rows = np.arange(height * cell_px)[:, None] // cell_px
    columns = np.arange(width * cell_px)[None, :] // cell_px
    compact = compact.reshape(scene.region_map.shape)[: height * cell_px, : width * cell_px]
    index = (compact * height + rows) * width + columns
    counts = np.bincount(index.ravel(), minlength=len(leaves) * height * width)
    coverage = counts.reshape(len(leaves), height, width).astype(np.float32) * np.float32(1 / cell_px**2)
    return Targets(leaves.astype(np.uint8), coverage)


def training_scene(scene: Scene, image_size: int) -> TrainingScene:
    """Convert a scene, with its picture resized to SAM's input size."""
    levels = np.full((256, LEVELS), NO_LEVEL, np.int16)
    members: list[NDArray[np.bool_]] = []
    points: list[tuple[int, int]] = []
    classes = np.zeros(256, np.uint8)

    def add(region: SceneObject | ScenePart) -> int:
        row = np.zeros(256, np.bool_)
        row[list(region.leaf_values)] = True
        members.append(row)
        points.append(region.inner_point_px)
        return len(members) - 1

    for thing in scene.objects:
        object_idx, leaves = add(thing), list(thing.leaf_values)
        levels[leaves, 2] = object_idx
        classes[leaves] = _name_class(thing.category)
        for part in thing.parts:
            # A click on a part without sub-parts means (part, part, object); on a sub-part all three differ.
            leaves = list(part.leaf_values)
            levels[leaves, :2] = add(part)
            classes[leaves] = _name_class(f"{thing.category}/{part.name}")
            for subpart in part.subparts:
                leaves = list(subpart.leaf_values)
                levels[leaves, 0] = add(subpart)
                classes[leaves] = _name_class(f"{thing.category}/{part.name}/{subpart.name}")
    image = ResizeLongestSide(image_size).apply_image(np.asarray(scene.image))
    return TrainingScene(image, scene.region_map, levels, np.array(members), np.array(points, np.int16), classes)


class SceneStore:
    """Shards of rendered scenes in a folder, filled by a background process in the order of the seeds."""

    def __init__(self, folder: Path, first_seed: int, num_scenes: int, image_size: int) -> None:
        self._folder = folder / f"{first_seed}_{image_size}"
        self._first_seed = first_seed
        self._image_size = image_size
        self._renderer: multiprocessing.process.BaseProcess | None = None
        self.num_shards = -(-num_scenes // SCENES_PER_SHARD)

    def start_rendering(self) -> None:
        """Start the process that renders the missing shards; it ends with its parent."""
        self._renderer = multiprocessing.get_context("spawn").Process(target=self._render_politely, daemon=True)
        self._renderer.start()

    def stop_rendering(self) -> None:
        """End the rendering process, if there is one; the shards stay."""
        if self._renderer is not None:
            self._renderer.terminate()
            self._renderer.join()

    def batches(self, batch_size: int, seed: int, start: int) -> Iterator[list[TrainingScene]]:
        """Yield batches without end, the same for the same seed, beginning with batch `start`.

        The first pass follows the order of rendering and waits for it; later passes are shuffled. Half of the
        scenes are mirrored.
        """
        per_shard = SCENES_PER_SHARD // batch_size
        number = 0
        while True:
            epoch = number // (self.num_shards * per_shard)
            rng = np.random.default_rng([seed, epoch])
            order = rng.permutation(self.num_shards) if epoch else np.arange(self.num_shards)
            for shard_idx in order.tolist():
                if number + per_shard <= start:
                    number += per_shard
                    continue
                scenes = self._read(shard_idx)
                rng_shard = np.random.default_rng([seed, epoch, shard_idx])
                picks = rng_shard.permutation(SCENES_PER_SHARD)
                for batch_idx in range(per_shard):
                    chosen = picks[batch_idx * batch_size : (batch_idx + 1) * batch_size]
                    mirrored = rng_shard.random(batch_size) < 0.5
                    if number >= start:
                        yield [
                            scenes[i].flipped() if flip else scenes[i] for i, flip in zip(chosen, mirrored, strict=True)
                        ]
                    number += 1

    def _path(self, shard_idx: int) -> Path:
        return self._folder / f"{shard_idx:05d}.npz"

    def _render_politely(self) -> None:
        os.nice(5)  # so that rendering does not slow the training down
        self.render_missing()

    def render_missing(self) -> None:
        """Render every shard that does not exist yet."""
        self._folder.mkdir(parents=True, exist_ok=True)
        parent = multiprocessing.parent_process()
        for shard_idx in range(self.num_shards):
            if parent is not None and not parent.is_alive():
                return
            path = self._path(shard_idx)
            if path.exists():
                continue
            first = self._first_seed + shard_idx * SCENES_PER_SHARD
            scenes = [training_scene(make_scene(first + i), self._image_size) for i in range(SCENES_PER_SHARD)]
            arrays: dict[str, Any] = {}
            for name in TrainingScene.__slots__:
                values = [getattr(scene, name) for scene in scenes]
                is_ragged = name in ("members", "inner_points")
                arrays[name] = np.stack([_padded(value) for value in values] if is_ragged else values)
            counts = np.array([len(scene.members) for scene in scenes])
            # A reader never sees half a shard. An open file, because numpy adds `.npz` to other names.
            with Disk().replacement(path, durable=False) as partial, partial.open("wb") as file:
                np.savez(file, allow_pickle=False, counts=counts, **arrays)

    def _read(self, shard_idx: int) -> list[TrainingScene]:
        path = self._path(shard_idx)
        while not path.exists():
            if self._renderer is None or not self._renderer.is_alive():
                raise RuntimeError(f"{path} is missing and its renderer has stopped; its error is in the output above")
            time.sleep(_WAIT_S)
        with np.load(path, allow_pickle=False) as data:
            arrays = {name: data[name] for name in TrainingScene.__slots__}
            counts = data["counts"].tolist()
        for name in ("members", "inner_points"):
            arrays[name] = [rows[:count] for rows, count in zip(arrays[name], counts, strict=True)]
        return [TrainingScene(**{name: values[i] for name, values in arrays.items()}) for i in range(SCENES_PER_SHARD)]


def _padded(rows: NDArray[np.generic]) -> NDArray[np.generic]:
    """Pad `rows` with zero rows to the fixed number per scene, so that scenes stack."""
    return np.pad(rows, ((0, _MAX_REGIONS - len(rows)), (0, 0)))


def _name_class(name: str) -> int:
    """Hash a name to a part class; 0 is background."""
    return 1 + zlib.crc32(name.encode()) % (PART_CLASSES - 1)
