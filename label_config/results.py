"""Make Label Studio's result items of a region: first the geometry, then one item per filled control, all with one id.

The annotator's page breaks if the item of a field precedes the geometry or has none, or if its value is a string
instead of a list. `label_config/validate.py` checks this again before an answer is sent.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from label_config.geometry import encode_bitmask_png, encode_brush_rle, mask_to_polygon_pct
from label_config.reader import Field, LabelConfig

BoolMask = NDArray[np.bool_]

_VALUE_KEYS = {"textarea": "text", "choices": "choices", "taxonomy": "taxonomy"}


@dataclass(frozen=True)
class AnsweredRegion:
    """A region with its values, as it is sent to the page.

    Attributes:
        region_id: Label Studio's id of the region.
        image_wh: width and height of the image in pixels.
        mask: (H, W) in the image's frame; may be None if `drawn` is given.
        label: label of the region; None: none, or that of `drawn`.
        values: value of each field by control name; fields without an entry stay empty.
        score: score of the region, 0 to 1.
        origin: Label Studio's `origin` of the result items.
        parent_id: id of the region that this one is a part of.
        drawn: the geometry item that the page already has. It is sent back unchanged instead of `mask`, so that a
            description does not change the geometry.
        notes: remarks that the page shows with the region.
        osprey_meta: return value of the function `osprey_meta`.
    """

    region_id: str
    image_wh: tuple[int, int]
    mask: BoolMask | None
    label: str | None
    values: Mapping[str, list[Any]]
    score: float
    origin: str = "prediction"
    parent_id: str | None = None
    drawn: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()
    osprey_meta: Mapping[str, Any] = field(default_factory=dict)


def region_items(config: LabelConfig, region: AnsweredRegion) -> list[dict[str, Any]]:
    """Make the complete result items of one region. The page replaces a region whose id it already has."""
    envelope: dict[str, Any] = {
        "id": region.region_id,
        "to_name": config.image_name,
        "original_width": region.image_wh[0],
        "original_height": region.image_wh[1],
        "image_rotation": 0,
        "origin": region.origin,
    }
    if region.parent_id is not None:
        envelope["parentID"] = region.parent_id
    geometry = {
        **envelope,
        "type": config.output.result_type,
        "from_name": config.output.name,
        "score": round(region.score, 4),
        "meta": {"text": list(region.notes), "osprey": dict(region.osprey_meta)},
        "value": _geometry(config, region),
    }
    if not region.notes:
        del geometry["meta"]["text"]
    return [geometry] + [
        {**envelope, "type": asked.result_type, "from_name": asked.name, "value": _field_value(asked, content)}
        for asked in config.fields
        if (content := region.values.get(asked.name))
    ]


def osprey_meta(
    model_version: str | None,
    segmenter_version: str | None,
    suggestion: Mapping[str, list[str]],
    confidence: Mapping[str, float],
    *,
    job: str | None = None,
    blind: bool = False,
) -> dict[str, Any]:
    """Return what the meta data of a region store about its answer, under the key `osprey`.

    Args:
        model_version: version of the model that answered.
        segmenter_version: version of the model that made the mask.
        suggestion: the model's answer by control name, including controls that stay empty.
        confidence: the confidence of each answer, 0 to 1, by control name.
        job: id of the describe job whose answers are still missing.
        blind: whether the fields are left empty on purpose.
    """
    return {
        "model_version": model_version,
        "segmenter_version": segmenter_version,
        "suggestion": suggestion,
        "confidence": confidence,
        "job": job,
        **({"blind": True} if blind else {}),
    }


def region_score(mask_score: float, confidence: Mapping[str, float]) -> float:
    """Compute the score of the uncertainty order: SAM's own estimate times the fields' mean confidence, 0 to 1."""
    mean = sum(confidence.values()) / len(confidence) if confidence else 1.0
    return min(max(mask_score, 0.0), 1.0) * min(max(mean, 0.0), 1.0)


def _geometry(config: LabelConfig, region: AnsweredRegion) -> dict[str, Any]:
    """Make the value of the geometry item, in the format of the output control."""
    output = config.output
    if region.drawn is not None:
        drawn: dict[str, Any] = copy.deepcopy(dict(region.drawn["value"]))
        return drawn if region.label is None else {**drawn, output.result_type: [region.label]}
    assert region.mask is not None, f"region {region.region_id} has neither a mask nor a drawn geometry"
    if output.kind == "bitmask":
        value: dict[str, Any] = {"imageDataURL": encode_bitmask_png(region.mask)}
    elif output.kind == "polygon":
        value = {"points": mask_to_polygon_pct(region.mask), "closed": True}
    else:
        value = {"format": "rle", "rle": encode_brush_rle(region.mask)}
    if region.label is not None:
        value[output.result_type] = [region.label]
    return value


def _field_value(asked: Field, content: list[Any]) -> dict[str, Any]:
    """Make the value of a field's item, in the format of its control."""
    return {_VALUE_KEYS[asked.result_type]: content}
