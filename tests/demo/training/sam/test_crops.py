"""Claims about crops: they show one whole object, and all coordinates move with them."""

import numpy as np
import pytest

from demo.scenes import make_scene
from demo.training.sam.crops import CROP_TOKENS, object_view
from demo.training.sam.data import training_scene

PATCH, WINDOW, SCALE = 8, 8, 2


@pytest.mark.parametrize("seed", range(4))
def test_a_crop_is_the_scene_at_its_origin(seed):
    """Pixels, regions and inner points are the scene's, moved by the origin; kept regions are whole."""
    scene = training_scene(make_scene(seed), 256)
    view = object_view(scene, PATCH, WINDOW, np.random.default_rng(seed))
    row, column = (tokens * PATCH for tokens in view.origin)
    side = CROP_TOKENS * PATCH
    np.testing.assert_array_equal(view.scene.image, scene.image[row : row + side, column : column + side])
    window = np.s_[row * SCALE : (row + side) * SCALE, column * SCALE : (column + side) * SCALE]
    np.testing.assert_array_equal(view.scene.region_map, scene.region_map[window])
    assert len(view.scene.members) >= 1
    whole = {members.tobytes(): points for members, points in zip(scene.members, scene.inner_points, strict=True)}
    for members, point in zip(view.scene.members, view.scene.inner_points, strict=True):
        kept = members[view.scene.region_map].sum()
        assert kept >= 0.97 * members[scene.region_map].sum()
        np.testing.assert_array_equal(point + np.array([column, row]) * SCALE, whole[members.tobytes()])


def test_the_levels_of_a_crop_name_its_own_regions():
    """A leaf may mean the same region as before, or none if that region is cut."""
    scene = training_scene(make_scene(9), 256)
    view = object_view(scene, PATCH, WINDOW, np.random.default_rng(0))
    for leaf in np.unique(view.scene.region_map):
        for before, after in zip(scene.levels[leaf], view.scene.levels[leaf], strict=True):
            if after >= 0:
                np.testing.assert_array_equal(view.scene.members[after], scene.members[before])
    assert (view.scene.levels >= 0).any()
