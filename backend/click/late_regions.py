"""A region of the page under another label: Label Studio puts the active label on whatever it is sent."""

from __future__ import annotations

from typing import Any

import numpy as np

from backend.click.page import PageRegion
from label_config.reader import LabelConfig
from label_config.results import AnsweredRegion, region_items


def relabelled_items(config: LabelConfig, region: PageRegion, label: str) -> list[dict[str, Any]]:
    """A region of the page as the page has it, under another label."""
    assert region.geometry is not None, f"region {region.region_id} is not in the request"
    meta = region.geometry.get("meta") or {}
    answered = AnsweredRegion(
        region_id=region.region_id,
        image_wh=region.image_wh,
        mask=np.zeros((0, 0), dtype=np.bool_),  # not used: the drawn geometry goes back
        label=label,
        values=region.values,
        score=float(region.geometry.get("score") or 0.0),
        origin=region.origin,
        parent_id=region.parent_id,
        drawn=region.geometry,
        notes=tuple(meta.get("text") or ()),
        osprey_meta=meta.get("osprey") or {},
    )
    return region_items(config, answered)
