"""The choice between SAM's masks."""

from __future__ import annotations

import numpy as np

from backend.click.candidates import (
    LEAST_IOU,
    Picked,
    cut_out,
    pick_clicked,
    pick_for_box,
    pick_object,
    pick_part,
    pick_refined,
    subtract,
)
from job_queue.contracts import PromptPoint
from tests.support.click_fakes import BALL, BOX, DOT

EVERYTHING = np.ones_like(BALL)
HALF_BALL = BALL & (np.arange(BALL.shape[1]) < 160)
IN_DOT, BESIDE_DOT = (160.0, 160.0), (200.0, 160.0)


def picked(mask: np.ndarray, predicted_iou: float = 0.9) -> Picked:
    return Picked.of_mask(mask, predicted_iou, None)


def test_the_object_is_the_largest_good_mask() -> None:
    dot, ball = picked(DOT, 0.95), picked(BALL, 0.88)
    assert pick_object([dot, ball]) is ball


def test_a_large_but_poor_mask_is_not_the_object() -> None:
    dot, ball = picked(DOT, 0.95), picked(BALL, 0.8)
    assert pick_object([dot, ball]) is dot


def test_the_background_is_an_object_only_where_nothing_else_is() -> None:
    ball, everything = picked(BALL), picked(EVERYTHING)
    assert pick_object([ball, everything]) is ball
    assert pick_object([everything]) is everything
    assert pick_object([]) is None


def test_a_box_gets_the_mask_that_fills_it() -> None:
    dot, ball = picked(DOT, 0.95), picked(BALL, 0.9)
    assert pick_for_box([dot, ball], (100, 100, 221, 221)) is ball
    assert pick_for_box([dot, ball], (140, 140, 181, 181)) is dot


def test_a_part_is_clearly_smaller_and_inside() -> None:
    dot, half, ball, box = picked(DOT), picked(HALF_BALL), picked(BALL), picked(BOX)
    assert pick_part([dot, half, ball, box], BALL) is half
    assert pick_part([ball, box], BALL) is None


def test_refining_obeys_the_points_before_anything_else() -> None:
    dot, half, ball = picked(DOT, 0.99), picked(HALF_BALL, 0.5), picked(BALL, 0.6)
    points = [PromptPoint(110, 160), PromptPoint(*BESIDE_DOT, positive=False)]
    assert pick_refined([dot, half, ball], points, part=False) is half


def test_refining_a_part_takes_the_best_mask_and_an_object_the_larger() -> None:
    half, ball = picked(HALF_BALL, 0.95), picked(BALL, 0.9)
    assert pick_refined([half, ball], [PromptPoint(110, 160)], part=True) is half
    assert pick_refined([half, ball], [PromptPoint(110, 160)], part=False) is ball


def test_a_click_on_empty_ground_picks_nothing() -> None:
    doubtful, sure = picked(BALL, LEAST_IOU - 0.01), picked(DOT, LEAST_IOU)
    assert pick_clicked([doubtful]) is None
    assert pick_clicked([doubtful, sure]) is sure


def test_subtracting_never_adds_a_pixel_and_leaves_the_point_out() -> None:
    ring = (BALL | BOX) & ~DOT
    result = subtract([picked(DOT), picked(ring)], BALL, [PromptPoint(*IN_DOT, positive=False)])
    assert np.array_equal(result.mask, BALL & ~DOT)


def test_subtracting_with_no_mask_that_leaves_the_point_out_gives_nothing() -> None:
    assert subtract([picked(BALL)], BALL, [PromptPoint(*IN_DOT, positive=False)]) is None


def test_subtracting_must_leave_something() -> None:
    assert subtract([picked(BOX)], BALL, [PromptPoint(*IN_DOT, positive=False)]) is None


def test_cutting_out_takes_the_part_at_the_point_away() -> None:
    assert np.array_equal(cut_out([picked(DOT), picked(BALL)], BALL).mask, BALL & ~DOT)
    assert cut_out([picked(BALL)], BALL) is None
