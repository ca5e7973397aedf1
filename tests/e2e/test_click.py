"""Claims about the gestures in the real page: each gives a mask with its fields, and no point stays behind."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from demo.scenes import Scene, SceneObject
from label_config.ready_configs import BITMASK as CONFIG
from tests.e2e.page import LabelingPage
from tests.e2e.running_stack import Project, RunningStack
from tests.e2e.targets import box_pct, iou, largest_part, pct, scene_with

Window = Callable[..., LabelingPage]
PANEL_FIELDS = ("category", "part", "attribute", "detailed_description")


@pytest.fixture
def scene_and_object() -> tuple[Scene, SceneObject]:
    """Return a scene and its clock, which is its largest object."""
    return scene_with(0)


@pytest.fixture
def project(
    stack: RunningStack, scene_and_object: tuple[Scene, SceneObject], request: pytest.FixtureRequest
) -> Project:
    """A project of this test's own, so that regions of other tests play no part."""
    return stack.make_project(f"e2e {request.node.name}"[:50], CONFIG.read_text(), [scene_and_object[0].image])


def opened(window: Window, project: Project, **options: bool) -> LabelingPage:
    """Open the project's first task in a signed-in window and pick the smart point tool."""
    page = window(**options)
    page.open_task(project.id, project.task_ids[0])
    page.choose("point")
    return page


def test_one_click_gives_the_mask_and_its_fields(window, project, scene_and_object):
    """With auto-accept on, one click gives one region without points, and the panel shows every field."""
    scene, target = scene_and_object
    page = opened(window, project)
    page.click(*pct(scene, target.inner_point_px))
    (region,) = page.wait_for_masks(1)
    assert iou(region.mask, target.mask) >= 0.8
    assert region.origin == "prediction"

    page.select(region.id)
    page.shot("click")
    shown = {name: page.panel_text(name) for name in PANEL_FIELDS}
    shown["short_description"] = "".join(page.region_list_text())
    assert all(shown.values()), f"fields left empty: {shown}"
    assert shown["category"] == target.category
    assert target.color in shown["attribute"]
    assert target.category in shown["short_description"]


def test_auto_accept_off_refines_with_more_points_and_accepts(window, project, scene_and_object):
    """With auto-accept off, all pending points are one prompt; accepting keeps only the region with its fields."""
    scene, target = scene_and_object
    page = opened(window, project, auto_accept=False)
    page.click(*pct(scene, target.inner_point_px))
    page.wait_for_suggestions(1)
    part = largest_part(target)
    page.click(*pct(scene, part.inner_point_px))
    page.wait_for_suggestions(1)
    page.click(3, 3, negative=True)  # the background, which is not part of the object
    page.wait_for_suggestions(1)
    assert len(page.pending_prompts()) == 3, "with auto-accept off the points stay until the suggestion is accepted"
    page.shot("suggestion")

    page.accept_suggestions()
    (region,) = page.wait_for_masks(1)
    assert iou(region.mask, target.mask) >= 0.8
    assert region.text("category") == target.category


def test_alt_click_subtracts_from_the_region(window, project, scene_and_object):
    """A negative point alone removes its surroundings from the region, which keeps its id and its fields."""
    scene, target = scene_and_object
    part = largest_part(target)
    page = opened(window, project)
    page.click(*pct(scene, target.inner_point_px))
    (before,) = page.wait_for_masks(1)

    page.unselect()
    column, row = part.inner_point_px
    page.click_inside(before.id, *pct(scene, (column, row)), negative=True)
    page.wait_for("a smaller mask", lambda: page.masks() and page.masks()[0].mask.sum() < before.mask.sum())
    (after,) = page.wait_for_masks(1)
    page.shot("subtracted")
    assert after.id == before.id
    assert not after.mask[row, column], "the point that was taken away is still in the mask"
    assert after.text("category"), "the fields were lost"


def test_box_prompt(window, project, scene_and_object):
    """A box around an object gives the object's mask."""
    scene, target = scene_and_object
    page = opened(window, project)
    page.choose("box")
    page.drag(*box_pct(scene, target.mask))
    (region,) = page.wait_for_masks(1)
    page.shot("box")
    assert iou(region.mask, target.mask) >= 0.8
    assert region.text("category") == target.category


def test_a_second_click_inside_gives_the_part_nested_under_its_object(window, project, scene_and_object):
    """A click inside an object gives its part, nested under the object in the Regions panel, with its name."""
    scene, target = scene_and_object
    part = largest_part(target)
    page = opened(window, project)
    page.click(*pct(scene, target.inner_point_px))
    (whole,) = page.wait_for_masks(1)

    page.click_inside(whole.id, *pct(scene, part.inner_point_px))
    regions = page.wait_for_masks(2)
    nested = next(region for region in regions if region.id != whole.id)
    page.select(nested.id)
    page.shot("part")
    assert nested.parent_id == whole.id
    assert nested.mask.sum() < whole.mask.sum()
    assert all(nested.text(name) for name in (*PANEL_FIELDS, "short_description")), nested.fields
    assert nested.text("category") == target.category

    # Label Studio gives the part the label of the selected object; the answer to a prompt without a label corrects it.
    page.unselect()
    page.page.wait_for_timeout(7_000)  # drafts are saved after about five seconds
    other = next(each for each in scene.objects if each.idx != target.idx)
    page.click(*pct(scene, other.inner_point_px))
    page.wait_for_masks(3)
    (mended,) = [region for region in page.masks() if region.id == nested.id]
    page.shot("part-label")
    assert mended.labels == ["Part"]
    assert mended.fields == nested.fields


def test_describe_gesture_fills_a_region_drawn_by_hand(window, project, scene_and_object):
    """A prompt inside a hand-drawn region fills its fields and does not change its mask."""
    scene, target = scene_and_object
    page = opened(window, project)
    page.paint("Object", [pct(scene, point) for point in _strokes(target)])
    (drawn,) = page.wait_for_masks(1)
    assert drawn.origin == "manual"
    assert not drawn.text("category")
    page.page.wait_for_timeout(7_000)  # the backend knows a drawn region from its draft, saved after about five seconds

    page.choose("point")
    page.click_inside(drawn.id, *pct(scene, target.inner_point_px))
    page.wait_for("the category filled in", lambda: page.masks()[0].text("category"))
    (described,) = page.wait_for_masks(1)
    page.select(described.id)
    page.shot("described")
    assert described.id == drawn.id
    assert iou(described.mask, drawn.mask) == 1.0
    assert described.text("short_description")


def _strokes(target: SceneObject) -> list[tuple[float, float]]:
    """Return a path over the object, for strokes of the brush."""
    column, row = target.inner_point_px
    return [(column - 12, row - 12), (column + 12, row - 12), (column + 12, row + 12), (column - 12, row + 12)]
