"""Claims about two annotators who work at the same time."""

from __future__ import annotations

from label_config.ready_configs import BITMASK as CONFIG
from tests.e2e.targets import iou, pct, scene_with


def test_both_get_the_answer_to_their_own_click(stack, window):
    """Two users who click different images at the same moment each get the region of their own click."""
    first, second = scene_with(1), scene_with(2)
    project = stack.make_project("e2e two annotators", CONFIG.read_text(), [first[0].image, second[0].image])
    pages = [window(), window(login=stack.add_user())]
    for page, task_id in zip(pages, project.task_ids, strict=True):
        page.open_task(project.id, task_id)
        page.choose("point")
    for page, (scene, target) in zip(pages, (first, second), strict=True):
        page.click(*pct(scene, target.inner_point_px))  # returns at once, so both prompts wait together
    for page, (_, target) in zip(pages, (first, second), strict=True):
        (region,) = page.wait_for_masks(1)
        page.select(region.id)
        page.shot(f"own-{target.category}")
        assert iou(region.mask, target.mask) >= 0.8
        assert region.text("category") == target.category


def test_two_people_on_one_task_keep_their_own_regions(stack, window):
    """If two users work on the same task, each page shows only the region of its own click."""
    scene, target = scene_with(3)
    other = next(each for each in scene.objects if each.idx != target.idx)
    project = stack.make_project("e2e one task, two people", CONFIG.read_text(), [scene.image])
    pages = [window(), window(login=stack.add_user())]
    for page in pages:
        page.open_task(project.id, project.task_ids[0])
        page.choose("point")
    for page, clicked in zip(pages, (target, other), strict=True):
        page.click(*pct(scene, clicked.inner_point_px))
    for page, clicked in zip(pages, (target, other), strict=True):
        (region,) = page.wait_for_masks(1)
        assert iou(region.mask, clicked.mask) >= 0.8
