"""The meaning of a prompt on a page with regions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from backend.click.gestures import Describe, NewRegion, Refine, Refuse, Subtract, decide
from backend.click.page import Page, PageRegion
from backend.click.prompts import Prompt
from job_queue.contracts import PromptPoint
from tests.support.click_fakes import BALL, BOX, DOT, HEIGHT, WIDTH, region_record

IMAGE_WH = (WIDTH, HEIGHT)


def region(region_id: str, mask: np.ndarray, **changes: Any) -> PageRegion:
    """Return a region that the backend answered and described."""
    record = region_record(region_id, mask, **{"described": True, **changes})
    return PageRegion(region_id, (), record, "mask", IMAGE_WH)


def hand_drawn(region_id: str, mask: np.ndarray) -> PageRegion:
    points = np.argwhere(mask)
    (top, left), (bottom, right) = points.min(axis=0), points.max(axis=0) + 1
    corners = [[left, top], [right, top], [right, bottom], [left, bottom]]
    item = {
        "id": region_id, "type": "polygonlabels", "from_name": "mask", "origin": "manual",
        "original_width": WIDTH, "original_height": HEIGHT,
        "value": {"points": [[x / WIDTH * 100, y / HEIGHT * 100] for x, y in corners], "closed": True},
    }  # fmt: skip
    return PageRegion(region_id, (item,), None, "mask", IMAGE_WH)


def page(*regions: PageRegion) -> Page:
    return Page(regions, None, shows_notice=False)


def points(*given: tuple[float, float, bool], label: str | None = None, ids: str = "abc") -> Prompt:
    return Prompt(IMAGE_WH, tuple(ids[: len(given)]), tuple(PromptPoint(*point) for point in given), None, label)


IN_BALL, IN_DOT, IN_BOX, OUTSIDE = (200, 160, True), (160, 160, True), (350, 200, True), (500, 380, True)
NOT_DOT = (160, 160, False)


def test_outside_every_region_is_a_new_object() -> None:
    assert decide(points(IN_BOX), page(region("ball", BALL))) == NewRegion()


def test_a_box_is_a_new_object_wherever_it_is() -> None:
    prompt = Prompt(IMAGE_WH, ("b",), (), (150.0, 150.0, 170.0, 170.0))
    assert decide(prompt, page(region("ball", BALL))) == NewRegion()


def test_the_part_label_makes_a_part() -> None:
    assert decide(points(IN_BALL, label="Part"), page()) == NewRegion(part=True)


def test_inside_a_described_region_is_its_part() -> None:
    ball = region("ball", BALL)
    assert decide(points(IN_BALL), page(ball)) == NewRegion(part=True, parent=ball)


def test_the_label_of_a_selected_object_does_not_make_its_part_an_object() -> None:
    ball = region("ball", BALL)
    assert decide(points(IN_BALL, label="Object"), page(ball)) == NewRegion(part=True, parent=ball)


def test_the_smallest_region_around_the_point_is_meant() -> None:
    dot = region("dot", DOT)
    assert decide(points(IN_DOT), page(region("ball", BALL), dot)) == NewRegion(part=True, parent=dot)


def test_inside_a_hand_drawn_region_is_describe() -> None:
    drawn = hand_drawn("drawn", BALL)
    assert decide(points(IN_BALL), page(drawn)) == Describe(drawn)


def test_inside_a_region_with_missing_values_is_describe() -> None:
    late = region("ball", BALL, described=False)
    assert decide(points(IN_BALL), page(late)) == Describe(late)


def test_only_negative_points_subtract_from_the_region_under_them() -> None:
    ball = region("ball", BALL)
    assert decide(points(NOT_DOT), page(ball, region("box", BOX, answered_at=9.0))) == Subtract(ball)


def test_negative_points_outside_subtract_from_the_last_answer() -> None:
    box = region("box", BOX, answered_at=9.0)
    assert decide(points((500, 380, False)), page(box, region("ball", BALL))) == Subtract(box)


def test_negative_points_on_an_empty_page_are_refused() -> None:
    assert isinstance(decide(points(NOT_DOT), page()), Refuse)


def test_points_of_a_pending_suggestion_refine_it() -> None:
    pending = region("ball", BALL, prompt_ids=("a",), points=(PromptPoint(200, 160),))
    assert decide(points(IN_BALL, OUTSIDE), page(pending)) == Refine(pending)


@pytest.mark.parametrize("prompt_ids", [(), ("z",)])
def test_points_without_a_pending_suggestion_are_judged_by_where_they_are(prompt_ids: tuple[str, ...]) -> None:
    other = region("ball", BALL, prompt_ids=prompt_ids, points=tuple(PromptPoint(1, 1) for _ in prompt_ids))
    assert decide(points(IN_BALL, OUTSIDE), page(other)) == NewRegion()
