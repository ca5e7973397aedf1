"""Claims about the three ready labeling configs in the real page."""

from __future__ import annotations

import pytest

from label_config.ready_configs import BITMASK as CONFIG
from tests.e2e.targets import iou, pct, scene_with


@pytest.mark.parametrize(
    ("config", "region_type"), [("bitmask", "bitmaskregion"), ("polygon", "polygonregion"), ("brush", "brushregion")]
)
def test_click_select_submit(stack, window, config, region_type):
    """A click gives a region of the config's kind; the page shows its fields and stores them in the annotation."""
    scene, target = scene_with(1)
    project = stack.make_project(f"e2e {config}", CONFIG.with_name(f"{config}.xml").read_text(), [scene.image])
    page = window()
    page.open_task(project.id, project.task_ids[0])
    page.choose("point")
    page.click(*pct(scene, target.inner_point_px))
    (region,) = page.wait_for_masks(1)
    assert region.type == region_type
    assert iou(region.mask, target.mask) >= 0.8
    page.select(region.id)
    page.shot(config)
    assert page.panel_text("category") == target.category
    annotation = stack.annotation(page.submit())
    stored = {item["from_name"] for item in annotation["result"]}
    assert {"mask", "category", "attribute", "short_description", "detailed_description"} <= stored
