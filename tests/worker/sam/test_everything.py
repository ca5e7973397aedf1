"""Claims about regions without a prompt: grid, filters, duplicates and granularities, bounded memory."""

import numpy as np
import pytest
import torch

from worker.sam import everything
from worker.sam.everything import PointDecoder, PointGrid, RegionFilter, find_regions, without_specks
from worker.sam.masks import Frame

FRAME = Frame((640, 640), (256, 256), 256, 64)
ANY = RegionFilter(min_predicted_iou=0, min_stability=0, min_area_px=0, max_area_unit=1)


def square(left, top, side, depth=4.0):
    logits = np.full((64, 64), -depth, np.float32)
    logits[top : top + side, left : left + side] = depth
    return logits


def found(*answers, keep=ANY, batch=2, max_regions=None):
    """Return the regions when the n-th point has the n-th answer (logits, predicted IoU), all in the first pass."""
    # The first pass takes every second point of every second row: answers lie on those.
    rows = np.full((2, 2 * len(answers), 2), -1.0)
    rows[1, 1::2, 0] = np.arange(len(answers))

    def decode(points_N2):
        asked = [answers[int(x)] if x >= 0 else (np.full((64, 64), -4, np.float32), 0.0) for x, _ in points_N2]
        logits = torch.tensor(np.stack([logits for logits, _ in asked]))[:, None]
        return logits, torch.tensor([[iou] for _, iou in asked])

    return find_regions(PointDecoder(decode, batch, FRAME, 0.0), PointGrid(rows), keep, max_regions)


@pytest.mark.parametrize(("image_hw", "expected"), [((640, 640), 64), ((320, 640), 32), ((1, 640), 8), ((1, 1), 64)])
def test_the_grid_is_as_dense_along_both_sides(image_hw, expected):
    """Eight points along the longer side, square cells, every point inside the image and none twice."""
    points = PointGrid.of_image(image_hw, 8).points_px.reshape(-1, 2)
    assert len(points) == expected
    assert len({tuple(point) for point in points}) == expected
    assert (points > 0).all()
    assert (points < (image_hw[1], image_hw[0])).all()


def test_no_points_is_named():
    with pytest.raises(ValueError, match="points_per_side must be at least 1"):
        PointGrid.of_image((10, 10), 0)


def test_ground_without_regions_is_not_asked_twice():
    """The second pass decodes points only inside masks of the first one, and finds the part there."""
    grid, asked = PointGrid.of_image((640, 640), 16), []

    def decode(points_N2):
        """A square with a small part that only the point at its middle, of the second pass, finds."""
        asked.extend(map(tuple, points_N2))
        inside = [100 <= x < 300 and 100 <= y < 300 for x, y in points_N2]
        in_part = [160 <= x < 200 and 160 <= y < 200 for x, y in points_N2]
        masks = [square(16, 16, 4) if part else square(10, 10, 20) for part in in_part]
        return torch.tensor(np.stack(masks))[:, None], torch.tensor([[0.9 * one] for one in inside])

    keep = RegionFilter(min_predicted_iou=0.5, min_stability=0, min_area_px=0)
    regions = find_regions(PointDecoder(decode, 7, FRAME, 0.0), grid, keep, None)
    assert len(regions) == 2
    assert len(asked) == len(set(asked)) == 64 + 25 - 4


@pytest.mark.parametrize("image_hw", [(1, 1), (1, 640), (640, 1), (2, 3)])
def test_narrow_images_are_asked_too(image_hw):
    """An image with one row or one column of points has points in the first pass."""
    assert PointGrid.of_image(image_hw, 4).every_second().any()


def test_of_near_duplicates_the_best_stays_and_best_comes_first():
    """The same square three times is one region; another square is another."""
    answers = [(square(5, 5, 20), 0.7), (square(5, 5, 20), 0.9), (square(6, 5, 20), 0.8), (square(40, 40, 10), 0.85)]
    assert [round(one.predicted_iou, 2) for one in found(*answers)] == [0.9, 0.85]


def test_a_part_and_its_whole_are_both_kept():
    """A smaller mask inside a larger one is another granularity, even directly after it."""
    assert len(found((square(5, 5, 40), 0.9), (square(10, 10, 20), 0.8), (square(12, 12, 6), 0.7))) == 3


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_the_answer_does_not_depend_on_the_batch(batch):
    """A device with more memory finds the same regions in the same order."""
    rng = np.random.default_rng(5)
    answers = [
        (square(*rng.integers(0, 40, 2), int(rng.integers(4, 24))), round(float(rng.uniform(0.3, 1)), 1))
        for _ in range(40)
    ]
    assert [one.rle for one in found(*answers, batch=batch)] == [one.rle for one in found(*answers, batch=7)]


def test_a_full_pool_is_thinned_without_losing_the_best(monkeypatch):
    """With however little memory for the pool, the best of each group of duplicates is kept."""
    answers = [(square(5 + i % 2, 5, 20), 0.5 + i / 100) for i in range(20)] + [(square(40, 40, 10), 0.4)]
    roomy = found(*answers)
    monkeypatch.setattr(everything, "_POOL_BYTES", 1)
    assert [one.rle for one in found(*answers)] == [one.rle for one in roomy]


@pytest.mark.parametrize(
    "keep",
    [
        {"min_predicted_iou": 0.5},  # the first is below
        {"min_stability": 0.5},  # the second is soft everywhere
        {"min_area_px": 500.0},  # the third covers 4 cells of 100 px
        {"max_area_unit": 0.9},  # the fourth is the whole image
    ],
)
def test_each_filter_drops_its_own(keep):
    """Every filter alone drops exactly one of four masks."""
    answers = [
        (square(5, 5, 20), 0.4),
        (square(30, 5, 20, depth=0.5), 0.9),
        (square(50, 50, 2), 0.9),
        (square(0, 0, 64), 0.9),
    ]
    options = {"min_predicted_iou": 0, "min_stability": 0, "min_area_px": 0, "max_area_unit": 1}
    assert len(found(*answers)) == 4
    assert len(found(*answers, keep=RegionFilter(**{**options, **keep}))) == 3


def test_at_most_max_regions_the_best_ones():
    answers = [(square(10 * i, 10, 8), 0.3 + i / 10) for i in range(6)]
    assert [round(one.predicted_iou, 1) for one in found(*answers, max_regions=2)] == [0.8, 0.7]
    assert found(*answers, max_regions=0) == []


@pytest.mark.parametrize("bad", [{"min_stability": 1.1}, {"max_iou": -0.1}, {"min_area_px": float("nan")}])
def test_senseless_thresholds_are_named(bad):
    with pytest.raises(ValueError, match="expected shares of 0 to 1"):
        RegionFilter(**bad)


def test_specks_and_holes_go_and_large_ones_stay():
    """An island of 4 cells and a hole of 9 are gone below 10 cells; a hole of 100 stays."""
    logits = square(5, 5, 40).astype(np.float16)
    logits[55:57, 55:57], logits[8:11, 8:11], logits[20:30, 20:30] = 4, -4, -4
    cleaned = without_specks(logits, 0.0, 10)
    expected = square(5, 5, 40).astype(np.float16)
    expected[20:30, 20:30] = -4
    assert (cleaned == expected).all()
    assert (without_specks(logits, 0.0, 0) == logits).all()
