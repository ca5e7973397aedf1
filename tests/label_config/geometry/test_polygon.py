"""Claims about masks as polygons."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp

from label_config.geometry import mask_to_polygon_pct, mask_to_polygons_pct, polygons_pct_to_mask

MASKS = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=24))


def iou(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of two masks."""
    return (one & other).sum() / (one | other).sum()


def disc(center_xy: tuple[int, int], radius_px: int, shape: tuple[int, int] = (300, 400)) -> np.ndarray:
    """A filled circle."""
    rows, columns = np.indices(shape)
    return (columns - center_xy[0]) ** 2 + (rows - center_xy[1]) ** 2 < radius_px**2


@settings(deadline=None)
@given(MASKS)
def test_exact_polygon_gives_the_mask_back(mask):
    """min_iou=1: any mask, with holes, parts and single pixels, survives as one ring and as one ring per part."""
    image_wh = mask.shape[::-1]
    ring = mask_to_polygon_pct(mask, min_iou=1.0)
    assert np.array_equal(polygons_pct_to_mask([ring] if ring else [], image_wh), mask)
    assert np.array_equal(polygons_pct_to_mask(mask_to_polygons_pct(mask, min_iou=1.0), image_wh), mask)


def test_ring_and_two_parts_in_few_corners():
    """A disc with a hole and a second disc fit in one ring of few corners that keeps the stated IoU."""
    mask = (disc((120, 150), 80) & ~disc((120, 150), 30)) | disc((300, 150), 50)
    ring = mask_to_polygon_pct(mask)
    back = polygons_pct_to_mask([ring], (400, 300))
    assert iou(back, mask) >= 0.985
    assert not back[150, 120]
    assert back[150, 300]
    assert len(ring) < 80


def test_parts_come_largest_first_and_specks_are_left_out():
    """Each part is a ring of its own, largest first; a speck that the IoU can do without is not one."""
    mask = disc((300, 150), 40) | disc((100, 150), 80)
    mask[5, 5] = True
    rings = mask_to_polygons_pct(mask)
    assert len(rings) == 2
    assert [polygons_pct_to_mask([ring], (400, 300)).sum() > 10_000 for ring in rings] == [True, False]


def test_noise_does_not_take_for_ever():
    """Of a mask of a hundred thousand specks the largest hundred are kept."""
    mask = np.random.default_rng(0).random((600, 800)) < 0.3
    assert 0 < len(mask_to_polygons_pct(mask)) <= 100


def test_empty_mask_has_no_polygon():
    """An empty mask gives no ring."""
    empty = np.zeros((5, 5), dtype=np.bool_)
    assert mask_to_polygon_pct(empty) == []
    assert mask_to_polygons_pct(empty) == []


def test_all_points_lie_in_the_image():
    """A mask that fills the image has corners from 0 to 100 percent."""
    points = np.array(mask_to_polygon_pct(np.ones((30, 40), dtype=np.bool_)))
    assert points.min() >= 0
    assert points.max() <= 100


def test_fill_is_nonzero_winding_as_the_page_fills():
    """The inside of a self-crossing star is filled, as a canvas fills it."""
    angles = np.deg2rad(90 + 144 * np.arange(5))
    star = np.stack([50 + 45 * np.cos(angles), 50 - 45 * np.sin(angles)], axis=1).tolist()
    assert polygons_pct_to_mask([star], (100, 100))[50, 50]


def test_pixels_count_by_their_centre():
    """A square from pixel 2 to pixel 5 covers three by three pixels, whichever way it is walked."""
    square = [[20, 20], [50, 20], [50, 50], [20, 50]]
    for ring in (square, square[::-1]):
        mask = polygons_pct_to_mask([ring], (10, 10))
        assert mask[2:5, 2:5].all()
        assert mask.sum() == 9


@pytest.mark.parametrize("points", [[], [[0, 0], [1, 1]], [[0, 0], [1, 1], [float("nan"), 2]], [[1], [2], [3]]])
def test_what_is_no_polygon_is_refused(points):
    """Fewer than three points, or points that are no pairs of numbers, are an error."""
    with pytest.raises(ValueError, match="polygon"):
        polygons_pct_to_mask([points], (10, 10))
