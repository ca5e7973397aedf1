"""Claims about the data configs: the trainer's reader opens a version with images, masks and weights."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
from PIL import Image

from learning.export.click_questions import CLICK_TYPES
from learning.export.layouts import DATA_CONFIGS, PAPER_CONFIGS
from learning.export.osprey_724k import PART_LEVEL, TYPES
from learning.export.version import ExportOptions
from osprey_model.data.mixture import Source, read_data_config
from osprey_model.data.records import FirstDraws
from tests.support.exports import export_project
from tests.support.submitted import CAR, PROJECT, annotation, region, task
from worker.images.resolver import ImageResolver
from worker.settings import Settings


def scene(task_id: int):
    """Return a task with an embedded image and one region, whose category an annotator corrected."""
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(task_id).integers(0, 255, (24, 32, 3), np.uint8)).save(buffer, "PNG")
    url = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    mask = np.zeros((24, 32), np.bool_)
    mask[4:12, 5:20] = True
    corrected = region(f"r{task_id}", CAR, mask=mask, suggestion={**CAR, "category": ["truck"]})
    return task(task_id, annotation(task_id, corrected), url=url)


def test_version_is_a_training_mixture(tmp_path):
    """Every row of data.json and held_out.json opens, image and mask have one size, no task is on both sides."""
    options = ExportOptions(held_out_share=0.4)
    images = ImageResolver(Settings(cache_dir=tmp_path / "cache"))
    version = export_project(PROJECT, [scene(idx) for idx in range(1, 13)], tmp_path / "out", options, images)
    tasks = {}
    for side, name in DATA_CONFIGS.items():
        files = read_data_config(version.path / name)
        files += read_data_config(version.path / PAPER_CONFIGS[side])
        assert {file.ann_file.name for file in files} == {*CLICK_TYPES, *TYPES} - {PART_LEVEL}  # there is no part
        assert {file.ann_file.parent.name for file in files} == {side}
        tasks[side] = {entry["id"] for file in files for entry in json.loads(file.ann_file.read_text())}
        for file in files:
            source = Source(file)
            assert len(source)
            assert {source.record(idx, FirstDraws()).weight for idx in range(len(source))} <= {1.0, 3.0}
            for position in range(len(source)):
                record = source.record(position, FirstDraws())
                with Image.open(record.image_path) as image:
                    assert (*image.size[::-1],) == record.masks().shape[1:]
    assert tasks["train"]
    assert tasks["held_out"]
    assert not tasks["train"] & tasks["held_out"]


def test_without_images_there_is_no_data_config(tmp_path):
    """A version without images cannot be trained on, so it has no data config."""
    version = export_project(PROJECT, [scene(1)], tmp_path)
    assert not any((version.path / name).exists() for name in DATA_CONFIGS.values())
