"""Claims about the export: it contains exactly what an annotator corrected and submitted in the page."""

from __future__ import annotations

import json

import numpy as np
from pycocotools import mask as coco_mask

from label_config.ready_configs import BITMASK as CONFIG
from tests.e2e.targets import iou, pct, scene_with

CORRECTED = "wall clock"


def test_export_holds_the_corrected_text_and_the_mask_of_the_page(stack, window, tmp_path):
    """After a correction and `osprey export`, the training file has the corrected text and the mask of the page."""
    scene, target = scene_with(0)
    project = stack.make_project("e2e correct and export", CONFIG.read_text(), [scene.image])
    page = window()
    page.open_task(project.id, project.task_ids[0])
    page.choose("point")
    page.click(*pct(scene, target.inner_point_px))
    (region,) = page.wait_for_masks(1)
    page.select(region.id)
    page.edit_text("category", CORRECTED)
    (region,) = page.masks()
    page.shot("corrected")
    assert region.fields["category"] == [CORRECTED]
    assert region.origin == "prediction-changed"
    annotation = stack.annotation(page.submit())
    geometry = next(item for item in annotation["result"] if item["type"].startswith("bitmask"))
    assert geometry["origin"] == "prediction-changed"
    assert geometry["meta"]["osprey"]["suggestion"]["category"] != CORRECTED, "the suggestion itself was not kept"

    stack.osprey("export", "--project", str(project.id), "--out", str(tmp_path))
    files = {file.name: json.loads(file.read_text()) for file in sorted(tmp_path.rglob("osprey_*.json"))}
    assert any(CORRECTED in json.dumps(entries) for entries in files.values()), (
        f"the corrected text is in none of {files}"
    )
    exported = _regions(list(files.values()))
    shown = region.mask
    assert max(iou(mask, shown) for mask in (_decoded(each) for each in exported)) == 1.0


def _regions(node: object) -> list[dict[str, object]]:
    """Return every object of a JSON document that has a mask as COCO RLE."""
    if isinstance(node, dict):
        here = [node] if isinstance(node.get("segmentation"), dict) else []
        return here + [found for value in node.values() for found in _regions(value)]
    return [found for value in node for found in _regions(value)] if isinstance(node, list) else []


def _decoded(region: dict[str, object]) -> np.ndarray:
    return coco_mask.decode(region["segmentation"]).astype(bool)
