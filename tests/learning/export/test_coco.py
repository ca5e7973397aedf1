"""Claims about the COCO layout: pycocotools and this project's readers get the submitted masks and values."""

from __future__ import annotations

import contextlib
import io
import json

import numpy as np
from pycocotools.coco import COCO

from learning.export.version import ExportOptions
from osprey_model.data.mixture import DataFile, Source
from osprey_model.data.records import FirstDraws
from tests.support.exports import export_project
from tests.support.stored_annotations import region_mask_of
from tests.support.submitted import CAR, PROJECT, WHEEL, annotation, region, task


def exported(tmp_path):
    """Export a car, its wheel and a tree without values in COCO format."""
    regions = (region("car00001", CAR), region("wheel001", WHEEL, label="Part", parent="car00001"), region("tree1", {}))
    options = ExportOptions(format="coco", held_out_share=0.0)
    return export_project(PROJECT, [task(11, annotation(7, *regions))], tmp_path, options).path


def test_pycocotools_reads_masks_categories_and_texts(tmp_path):
    """Masks equal the drawn ones, a part is named as in Pascal-Part, and every value is included."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(exported(tmp_path) / "train.json"))
    (image,) = coco.loadImgs(coco.getImgIds())
    assert (image["width"], image["height"], image["file_name"]) == (1024, 768, "task11-f4b2e5a7-street-1.png")
    found = coco.loadAnns(coco.getAnnIds(imgIds=[image["id"]]))
    names = {each["region"]: coco.loadCats([each["category_id"]])[0]["name"] for each in found}
    assert names == {"car00001": "car", "wheel001": "car:wheel", "tree1": "(none)"}
    for each in found:
        assert np.array_equal(coco.annToMask(each).astype(bool), region_mask_of(each["region"]))
    assert found[0]["texts"] == CAR
    assert found[0]["caption"] == CAR["detailed_description"][0]


def test_our_coco_readers_take_it(tmp_path):
    """`coco_data` reads the regions with a category, `VGDATA` the captions, both with masks."""
    folder = exported(tmp_path)
    for kind, answers in (("coco_data", ["car", "car:wheel"]), ("VGDATA", [CAR["detailed_description"][0], "car"])):
        source = Source(DataFile(kind, folder / "train.json", folder / "images"))
        record = source.record(0, FirstDraws())
        assert [answer for _, answer in record.turns] == answers
        for each, region_id in zip(record.regions, ("car00001", "wheel001"), strict=True):
            assert np.array_equal(each.mask(), region_mask_of(region_id))


def test_sides_number_categories_alike(tmp_path):
    """A category has the same number in both files."""
    made = [
        task(idx, annotation(idx, region(f"r{idx}", {"category": [f"thing {idx}"]})), url=f"/{idx}.png")
        for idx in range(1, 21)
    ]
    folder = export_project(PROJECT, made, tmp_path, ExportOptions(format="coco", held_out_share=0.5)).path
    train, held_out = (json.loads((folder / f"{side}.json").read_text()) for side in ("train", "held_out"))
    assert train["categories"] == held_out["categories"]
    assert len(train["annotations"]) + len(held_out["annotations"]) == 20
    assert train["annotations"]
    assert held_out["annotations"]
