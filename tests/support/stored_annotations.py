"""Annotations as Label Studio stores them: recorded answers, in which generated masks replace shortened geometry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from label_config.geometry import encode_bitmask_png, encode_brush_rle, mask_to_polygon_pct

PAYLOADS = Path(__file__).parents[1] / "data" / "payloads"
IMAGE_WH = (1024, 768)


def region_mask_of(region_id: str) -> np.ndarray:
    """Return the mask of a region: an ellipse that depends only on the id. Bool, (768, 1024)."""
    seed = sum(map(ord, region_id))
    rows, columns = np.ogrid[: IMAGE_WH[1], : IMAGE_WH[0]]
    center_x, center_y = 200 + seed % 600, 200 + seed % 350
    return ((columns - center_x) / 120) ** 2 + ((rows - center_y) / 80) ** 2 < 1


def stored_annotation(name: str) -> dict[str, Any]:
    """Return the annotation of `annotation_stored_<name>.json` with complete geometry in every item."""
    annotation: dict[str, Any] = json.loads((PAYLOADS / f"annotation_stored_{name}.json").read_text("utf-8"))["body"]
    for item in annotation["result"]:
        mask, value = region_mask_of(item["id"]), item["value"]
        if "rle" in value:
            value["rle"] = encode_brush_rle(mask)
        if "imageDataURL" in value:
            value["imageDataURL"] = encode_bitmask_png(mask)
        if "points" in value:
            value["points"] = mask_to_polygon_pct(mask, min_iou=1.0)
        if "vertices" in value:
            value["vertices"] = [
                {"id": str(idx), "x": x, "y": y, "prevPointId": str(idx - 1) if idx else None, "isBezier": False}
                for idx, (x, y) in enumerate(mask_to_polygon_pct(mask, min_iou=1.0))
            ]
    return annotation
