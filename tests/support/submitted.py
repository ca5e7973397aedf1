"""Submitted tasks for export tests, as Label Studio's API gives them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import label_config
from label_config.geometry import encode_bitmask_png
from tests.support.stored_annotations import region_mask_of

CONFIG = (Path(label_config.__file__).parent / "bitmask.xml").read_text(encoding="utf-8")
PROJECT = {"id": 3, "title": "street", "label_config": CONFIG}


def region(
    region_id: str,
    texts: dict[str, list[str]],
    *,
    label: str = "Object",
    parent: str | None = None,
    suggestion: dict[str, Any] | None = None,
    origin: str = "prediction",
    mask: NDArray[np.bool_] | None = None,
) -> list[dict[str, Any]]:
    """Return the items of one bitmask region with the texts of its controls; the default mask is `region_mask_of`."""
    mask = region_mask_of(region_id) if mask is None else mask
    url = encode_bitmask_png(mask)
    shared: dict[str, Any] = {
        "id": region_id,
        "to_name": "image",
        "original_width": mask.shape[1],
        "original_height": mask.shape[0],
        "image_rotation": 0,
        "origin": origin,
        "score": 0.9,
    }
    if parent:
        shared["parentID"] = parent
    if suggestion is not None:
        ours = {"model_version": "nano-1", "suggestion": suggestion, "confidence": {"category": 0.8}}
        shared["meta"] = {"text": ["a note"], "osprey": ours}
    items = [
        {
            **shared,
            "type": "bitmasklabels",
            "from_name": "mask",
            "value": {"imageDataURL": url, "bitmasklabels": [label]},
        }
    ]
    for name, words in texts.items():
        value = {"imageDataURL": url, "text": words}
        items.append({**shared, "type": "textarea", "from_name": name, "value": value})
    return items


def annotation(annotation_id: int, *regions: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """Return a submitted annotation of these regions."""
    return {
        "id": annotation_id,
        "completed_by": {"id": 5, "email": "someone@example.com"},
        "was_cancelled": False,
        "lead_time": 6.9,
        "updated_at": "2026-11-20T18:49:41.276719Z",
        "result": [item for items in regions for item in items],
        **more,
    }


def task(
    task_id: int, *annotations: dict[str, Any], url: str = "/data/upload/3/f4b2e5a7-street_1.png"
) -> dict[str, Any]:
    """Return a task with these annotations."""
    return {"id": task_id, "data": {"image": url}, "annotations": list(annotations)}


CAR = {
    "category": ["car"],
    "attribute": ["blue", "metal"],
    "short_description": ["a blue car"],
    "detailed_description": ["A blue metal car stands left of a tree."],
}
WHEEL = {"category": ["car"], "part": ["wheel"], "attribute": ["black", "rubber"]}
