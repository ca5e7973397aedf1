"""Claims about masks as polygons."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
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
    """With min_iou=1 any mask, with holes, parts and single pixels, comes back from one ring and from one per part."""
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
    """Each part has its own ring, largest first; a speck that the IoU does not need has none."""
    mask = disc((300, 150), 40) | disc((100, 150), 80)
    mask[5, 5] = True
    rings = mask_to_polygons_pct(mask)
    assert len(rings) == 2
    assert [polygons_pct_to_mask([ring], (400, 300)).sum() > 10_000 for ring in rings] == [True, False]


def test_noise_is_limited_to_the_largest_outlines():
    """Of a mask of a hundred thousand specks only the largest hundred are kept."""
    mask = np.random.default_rng(0).random((600, 800)) < 0.3
    assert 0 < len(mask_to_polygons_pct(mask)) <= 100


def test_specks_too_thin_for_any_block_are_still_outlined():
    """If no block is half covered by a hundred thousand scattered pixels, the largest hundred specks are kept."""
    mask = np.random.default_rng(0).random((900, 1200)) < 0.1
    assert 0 < len(mask_to_polygons_pct(mask)) <= 100


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.sampled_from([(300, 400), (1080, 1920)]), st.integers(40, 90))
def test_blobs_keep_the_stated_iou(seed, image_hw, softness_px):
    """Blobs with holes and parts, small and large, have the stated IoU and few enough corners to drag."""
    noise = np.random.default_rng(seed).standard_normal((image_hw[0] // 4, image_hw[1] // 4)).astype(np.float32)
    soft = cv2.GaussianBlur(noise, (0, 0), softness_px * image_hw[0] / 1080 / 2)
    mask = cv2.resize(soft / soft.std(), image_hw[::-1]) > 0.5
    ring = mask_to_polygon_pct(mask)
    assert iou(polygons_pct_to_mask([ring], image_hw[::-1]), mask) >= 0.985
    assert len(ring) <= 2200  # 2000 corners, and two more for each slit


def test_a_border_too_long_to_edit_is_smoothed():
    """A mask with a very irregular border gives a polygon of the right place and size, of at most 2000 corners."""
    noise = cv2.GaussianBlur(np.random.default_rng(0).standard_normal((1080, 1920)).astype(np.float32), (0, 0), 3)
    core = disc((960, 540), 450, (1080, 1920))
    mask = core & (noise / noise.std() > -0.7)
    rings = mask_to_polygons_pct(mask)
    assert sum(len(ring) for ring in rings) <= 2200
    assert iou(polygons_pct_to_mask(rings, (1920, 1080)), mask) > 0.75
    assert iou(polygons_pct_to_mask(rings, (1920, 1080)), core) > 0.75


def test_thin_lines_of_a_large_mask_survive():
    """A line one pixel wide is lost at a coarse resolution; then the exact outline is used."""
    mask = np.zeros((1080, 1920), dtype=np.bool_)
    mask[540, 100:1800] = True
    mask[10:1000, 100] = True
    assert iou(polygons_pct_to_mask([mask_to_polygon_pct(mask)], (1920, 1080)), mask) >= 0.985


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
    """A square from pixel 2 to pixel 5 covers three by three pixels, in either direction of its corners."""
    square = [[20, 20], [50, 20], [50, 50], [20, 50]]
    for ring in (square, square[::-1]):
        mask = polygons_pct_to_mask([ring], (10, 10))
        assert mask[2:5, 2:5].all()
        assert mask.sum() == 9


@pytest.mark.parametrize("points", [[], [[0, 0], [1, 1]], [[0, 0], [1, 1], [float("nan"), 2]], [[1], [2], [3]]])
def test_what_is_no_polygon_is_refused(points):
    """Fewer than three points, or points that are not pairs of numbers, are an error."""
    with pytest.raises(ValueError, match="polygon"):
        polygons_pct_to_mask([points], (10, 10))
