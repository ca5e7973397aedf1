"""Training scenes on disk: drawn once, read by every later stage as memory maps.

A cache folder holds, for N scenes in seed order, `images.npy` (the model's own preprocessing, float16),
`region_maps.npy` (which leaf area every pixel of the picture belongs to) and `records.json` (per scene its
regions with their ground truth). Masks are not stored: a region is a set of values of the region map.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from demo.scenes import Scene, make_scene
from demo.training.osprey.osprey_questions import QuestionItem, areas_of, ask_everything, owner_of, part_name
from osprey_model.inputs.preprocess import ImagePreprocessor

IMAGES_FILE, MAPS_FILE, RECORDS_FILE = "images.npy", "region_maps.npy", "records.json"
_CHUNK = 50  # scenes per message between processes


@dataclass(frozen=True, slots=True)
class RegionRecord:
    """One region's ground truth. `relations` are those of its object: (relation, other object's index)."""

    object_idx: int
    category: str
    part: str
    color: str
    material: str
    leaf_values: tuple[int, ...]
    relations: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class SceneRecord:
    """One scene without its pixels: regions (objects first, then parts) and all questions about them."""

    seed: int
    regions: tuple[RegionRecord, ...]
    num_objects: int
    questions: tuple[QuestionItem, ...]

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> SceneRecord:
        """Read the values of `dataclasses.asdict` after JSON has turned their tuples into lists."""
        regions = (
            RegionRecord(
                **each
                | {
                    "leaf_values": tuple(each["leaf_values"]),
                    "relations": tuple((relation, other) for relation, other in each["relations"]),
                }
            )
            for each in data["regions"]
        )
        questions = (QuestionItem(**each | {"regions": tuple(each["regions"])}) for each in data["questions"])
        return cls(data["seed"], tuple(regions), data["num_objects"], tuple(questions))


@dataclass(frozen=True, slots=True)
class SceneCache:
    """N drawn scenes. Arrays are memory maps; index k of each belongs to `records[k]`."""

    images_N3SS: NDArray[np.float16]
    region_maps_NHW: NDArray[np.uint8]
    records: tuple[SceneRecord, ...]

    @classmethod
    def open(cls, folder: Path) -> SceneCache:
        """Read a finished cache folder.

        Raises:
            FileNotFoundError: the folder is not complete; draw it first.
        """
        data = json.loads((folder / RECORDS_FILE).read_text(encoding="utf-8"))
        records = tuple(SceneRecord.from_json(each) for each in data)
        images = np.load(folder / IMAGES_FILE, mmap_mode="r")
        return cls(images, np.load(folder / MAPS_FILE, mmap_mode="r"), records)


def draw_cache(folder: Path, seeds: Sequence[int], image_size: int, processes: int = 1) -> Iterator[int]:
    """Draw the scenes of `seeds` into `folder`; yield how many are done. A finished folder stays as it is."""
    if (folder / RECORDS_FILE).exists():
        yield len(seeds)
        return
    folder.mkdir(parents=True, exist_ok=True)
    images = maps = None
    records: list[SceneRecord] = []
    draw, chunks = partial(_draw, image_size=image_size), list(_chunks(seeds))
    with ExitStack() as stack:
        if processes > 1:
            # Spawn instead of fork, because a fork copies the locks of torch's threads.
            pool = stack.enter_context(ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")))
            drawn_chunks = pool.map(draw, chunks)
        else:
            drawn_chunks = map(draw, chunks)
        for drawn in drawn_chunks:
            for image, region_map, record in drawn:
                if images is None or maps is None:
                    images = new_array(folder / IMAGES_FILE, np.float16, (len(seeds), *image.shape))
                    maps = new_array(folder / MAPS_FILE, np.uint8, (len(seeds), *region_map.shape))
                images[len(records)], maps[len(records)] = image, region_map
                records.append(record)
            yield len(records)
    # Written last, because a folder with this file counts as complete.
    (folder / RECORDS_FILE).write_text(json.dumps([dataclasses.asdict(each) for each in records]), encoding="utf-8")


def record_of(scene: Scene) -> SceneRecord:
    """Return a scene's regions and questions without its pixels."""
    regions = []
    for area in areas_of(scene):
        owner = owner_of(scene, area)
        what = (owner.category, part_name(area), area.color, area.material)
        regions.append(RegionRecord(owner.idx, *what, area.leaf_values, owner.relations))
    return SceneRecord(scene.seed, tuple(regions), len(scene.objects), ask_everything(scene))


def _draw(seeds: Sequence[int], image_size: int) -> list[tuple[NDArray[np.float16], NDArray[np.uint8], SceneRecord]]:
    """Draw a chunk of scenes: preprocessed picture, region map and record of each."""
    preprocess = ImagePreprocessor(image_size)
    scenes = (make_scene(seed) for seed in seeds)
    return [
        (preprocess(scene.image).numpy().astype(np.float16), scene.region_map, record_of(scene)) for scene in scenes
    ]


def _chunks(seeds: Sequence[int]) -> Iterator[Sequence[int]]:
    """Cut the seeds into chunks."""
    for start in range(0, len(seeds), _CHUNK):
        yield seeds[start : start + _CHUNK]


def new_array(path: Path, dtype: type, shape: tuple[int, ...]) -> NDArray[Any]:
    """Create an .npy file and return it as a writable memory map."""
    array: NDArray[Any] = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)  # type: ignore[no-untyped-call]
    return array
