"""Claims about the Parquet layout: it has the metadata for `datasets`, and rows hold what was submitted."""

from __future__ import annotations

import base64
import io
import json
import re

import numpy as np
import pyarrow.parquet as pq
from PIL import Image
from pycocotools import mask as coco_mask

from learning.export.version import ExportOptions
from tests.support.exports import export_project
from tests.support.submitted import CAR, PROJECT, annotation, region, task
from worker.images.resolver import ImageResolver
from worker.settings import Settings

MASK = np.zeros((24, 32), np.bool_)
MASK[4:12, 5:20] = True


def tasks(number: int):
    """Return tasks with an embedded image and a region each; one value has a lone surrogate."""
    made = []
    for idx in range(1, number + 1):
        buffer = io.BytesIO()
        Image.fromarray(np.random.default_rng(idx).integers(0, 255, (24, 32, 3), np.uint8)).save(buffer, "PNG")
        url = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
        texts = {**CAR, "short_description": ["broken \ud83d emoji"]}
        made.append(task(idx, annotation(idx, region(f"r{idx}", texts, mask=MASK, suggestion=CAR)), url=url))
    return made


def test_rows_hold_image_mask_and_texts(tmp_path):
    """Bytes decode to the image and the RLE to the mask, and the values are the submitted ones."""
    images = ImageResolver(Settings(cache_dir=tmp_path / "cache"))
    options = ExportOptions(format="parquet", held_out_share=0.0)
    version = export_project(PROJECT, tasks(3), tmp_path / "out", options, images)
    table = pq.read_table(version.path / "data" / "train-00000-of-00001.parquet")
    rows = table.to_pylist()
    assert [row["task"] for row in rows] == [1, 2, 3]
    for row in rows:
        with Image.open(io.BytesIO(row["image"]["bytes"])) as image:
            assert image.size == (row["width"], row["height"]) == (32, 24)
        (found,) = row["regions"]
        mask = {"size": found["mask"]["size"], "counts": found["mask"]["counts"].encode()}
        assert np.array_equal(coco_mask.decode(mask).astype(bool), MASK)
        texts = {each["field"]: each["values"] for each in found["texts"]}
        assert texts == {**CAR, "short_description": ["broken \\ud83d emoji"]}
        assert {each["field"]: each["values"] for each in found["suggestion"]} == CAR
        assert found["changed"] == ["short_description"]


def test_features_describe_every_column(tmp_path):
    """The metadata that `datasets` reads names each column, and the image as an Image."""
    version = export_project(PROJECT, tasks(1), tmp_path, ExportOptions(format="parquet", held_out_share=0.0))
    schema = pq.read_schema(version.path / "data" / "train-00000-of-00001.parquet")
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert list(features) == schema.names
    assert features["image"] == {"_type": "Image"}
    card = (version.path / "README.md").read_text("utf-8")
    assert re.match(r"---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n", card)


def test_without_images_the_address_stays(tmp_path):
    """A row has no bytes, and the address as in images.txt."""
    version = export_project(PROJECT, tasks(1), tmp_path, ExportOptions(format="parquet", held_out_share=0.0))
    (row,) = pq.read_table(version.path / "data" / "train-00000-of-00001.parquet").to_pylist()
    assert row["image"]["bytes"] is None
    assert row["image"]["path"].startswith("data:image/png;base64,sha256:")


def test_split_and_repetition(tmp_path):
    """Both sides have a file, the rows add up, and a second export finds the version of the first."""
    options = ExportOptions(format="parquet", held_out_share=0.5)
    version = export_project(PROJECT, tasks(12), tmp_path, options)
    rows = {path.name.split("-")[0]: pq.read_table(path).num_rows for path in (version.path / "data").iterdir()}
    assert sum(rows.values()) == 12
    assert set(rows) == {"train", "held_out"}
    assert not export_project(PROJECT, tasks(12), tmp_path, options).is_new
