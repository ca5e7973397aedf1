"""Claims about prompts drawn from ground truth: each lies in the regions that it may mean."""

import numpy as np
import pytest

from demo.scenes import make_scene
from demo.training.sam.data import training_scene
from demo.training.sam.prompts import BACKGROUND, draw_boxes, draw_clicks, draw_correction

SCALE = 0.5


@pytest.fixture(scope="module")
def scene():
    return training_scene(make_scene(5), 256)


def test_a_click_lies_in_every_region_it_may_mean(scene):
    """All three levels of a click contain its pixel; background clicks lie on the background."""
    clicks = draw_clicks(scene, 60, 10, SCALE, np.random.default_rng(0))
    for (x, y), regions in zip(clicks.points / SCALE, clicks.regions, strict=True):
        leaf = scene.region_map[int(y), int(x)]
        if (regions == BACKGROUND).all():
            assert leaf == 0
        else:
            assert all(scene.members[region][leaf] for region in regions if region >= 0)
    assert (clicks.regions[-10:] == BACKGROUND).all()
    assert len(np.unique(clicks.regions[:-10])) > 10


def test_a_box_is_close_to_its_region(scene):
    """Drawn boxes overlap the exact one by more than half."""
    boxes, regions = draw_boxes(scene, 20, SCALE, np.random.default_rng(0))
    for box, region in zip(boxes / SCALE, regions, strict=True):
        rows, columns = np.nonzero(scene.members[region][scene.region_map])
        exact = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        low, high = np.maximum(box[:2], exact[:2]), np.minimum(box[2:], exact[2:])
        shared = np.prod(np.maximum(high - low, 0))
        assert shared / (np.prod(box[2:] - box[:2]) + np.prod(exact[2:] - exact[:2]) - shared) > 0.5


def test_a_correction_points_at_the_error():
    """A correction lies at the middle of a wrong cell and excludes surplus or includes missing cells."""
    truth, predicted = np.zeros((24, 32), dtype=bool), np.zeros((24, 32), dtype=bool)
    truth[4:12, 4:12], predicted[4:12, 4:24] = True, True
    rng = np.random.default_rng(0)
    (x, y), label = draw_correction(predicted, truth, 2.0, rng)
    assert label == 0
    assert predicted[int(y / 2), int(x / 2)] > truth[int(y / 2), int(x / 2)]
    (x, y), label = draw_correction(np.zeros_like(truth), truth, 2.0, rng)
    assert label == 1
    assert truth[int(y / 2), int(x / 2)]


def test_nothing_to_correct_gives_no_point():
    """An empty truth that was predicted as empty has no next click."""
    empty = np.zeros((4, 4), dtype=bool)
    assert draw_correction(empty, empty, 2.0, np.random.default_rng(0))[1] == -1
