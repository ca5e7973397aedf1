"""Claims about the mask of stored result items."""

from __future__ import annotations

import numpy as np
import pytest

from label_config.geometry import region_mask
from tests.support.stored_annotations import region_mask_of, stored_annotation


def shape(value: dict, image_wh: tuple[int, int] = (200, 100)) -> dict:
    """A result item of that value."""
    return {"id": "r", "original_width": image_wh[0], "original_height": image_wh[1], "value": value}


@pytest.mark.parametrize("name", ["polygon", "vector", "bitmask_and_brush_meta"])
def test_every_stored_item_gives_its_region(name):
    """Polygon, vector, bitmask and brush are read; text items repeat the geometry and give the same mask."""
    items = stored_annotation(name)["result"]
    assert len(items) >= 3
    for item in items:
        assert np.array_equal(region_mask(item), region_mask_of(item["id"]))


def test_rotated_view_changes_nothing():
    """Coordinates are in the frame of the stored image, whatever image_rotation the annotator's view had."""
    item = stored_annotation("polygon")["result"][0]
    assert np.array_equal(region_mask(item | {"image_rotation": 90}), region_mask(item))


def test_rectangle():
    """A rectangle covers its pixels; percent of width and height separately."""
    mask = region_mask(shape({"x": 10, "y": 20, "width": 25, "height": 30, "rotation": 0}))
    assert mask[20:50, 20:70].all()
    assert mask.sum() == 30 * 50


def test_rotated_rectangle_turns_clockwise_about_its_corner():
    """A rectangle turned by 90 degrees lies to the left of its corner and below it."""
    mask = region_mask(shape({"x": 50, "y": 0, "width": 20, "height": 10, "rotation": 90}))
    assert mask[0:40, 90:100].all()
    assert mask.sum() == 40 * 10


def test_ellipse_area_and_rotation():
    """An ellipse has pi*a*b pixels, also when turned, and radii are percent of width and height."""
    for rotation in (0, 30):
        mask = region_mask(shape({"x": 50, "y": 50, "radiusX": 20, "radiusY": 20, "rotation": rotation}, (400, 200)))
        assert mask.sum() == pytest.approx(np.pi * 80 * 40, rel=0.01)
    assert not region_mask(shape({"x": 50, "y": 50, "radiusX": 0, "radiusY": 20})).any()


@pytest.mark.parametrize(
    "value",
    [
        {"x": 3, "y": 4, "width": 0.2},
        {"text": ["no region"]},
        {"points": [[0, 0], [50, 50], [50, 0]], "closed": False},
        {"vertices": [], "closed": False},
    ],
)
def test_no_area_gives_none(value):
    """Key points, texts of the image and open lines have no mask."""
    assert region_mask(shape(value)) is None


@pytest.mark.parametrize(
    "item",
    [
        shape({"rle": [1, 2, 3]}),
        shape({"rle": None}),
        shape({"imageDataURL": "nothing"}),
        shape({"points": "nothing", "closed": True}),
        shape({"vertices": [{"x": 1}], "closed": True}),
        shape({"x": "a", "y": 0, "width": 1, "height": 1}),
        shape({"x": float("nan"), "y": 0, "width": 1, "height": 1}),
        {"id": "r", "value": {"rle": [0]}},
        {"id": "r", "original_width": 10**6, "original_height": 10**6, "value": {"rle": [0]}},
    ],
)
def test_what_cannot_be_read_is_a_value_error(item):
    """All unreadable geometry raises ValueError, so that an export can report it and continue."""
    with pytest.raises(ValueError, match=r"\w"):
        region_mask(item)
