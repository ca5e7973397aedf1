"""Claims about rendered scenes and their soft targets."""

import numpy as np
import pytest

from demo.scenes import make_scene
from demo.training.sam.data import NO_LEVEL, SCENES_PER_SHARD, SceneStore, targets_of, training_scene

IMAGE_SIZE = 256


@pytest.fixture(scope="module")
def scene():
    return make_scene(3)


@pytest.fixture(scope="module")
def kept(scene):
    return training_scene(scene, IMAGE_SIZE)


def test_every_listed_region_is_kept_with_its_mask(scene, kept):
    """Masks of objects, parts and sub-parts from the region map are exactly those of the scene."""
    regions = []
    for thing in scene.objects:
        regions.append(thing)
        for part in thing.parts:
            regions += [part, *part.subparts]
    assert len(kept.members) == len(regions)
    for members, point, region in zip(kept.members, kept.inner_points, regions, strict=True):
        np.testing.assert_array_equal(members[kept.region_map], region.mask)
        assert tuple(point) == region.inner_point_px


def test_a_click_means_part_part_object_or_sub_part_part_object(scene, kept):
    """Each level's region lies inside the next one, and the last is always the object."""
    for leaf in np.unique(kept.region_map)[1:]:
        small, middle, large = kept.levels[leaf]
        assert large != NO_LEVEL
        assert kept.members[large][leaf]
        if small != NO_LEVEL:
            assert (kept.members[small] <= kept.members[middle]).all()
            assert (kept.members[middle] <= kept.members[large]).all()


def test_coverage_is_the_share_of_each_cell(kept):
    """A cell's coverage over all leaves is one, and a region's is the mean of its mask."""
    targets = targets_of(kept, 4)
    np.testing.assert_allclose(targets.coverage.sum(axis=0), 1, atol=1e-6)
    height, width = kept.region_map.shape
    mask = kept.members[0][kept.region_map].astype(np.float32)
    expected = mask.reshape(height // 4, 4, width // 4, 4).mean(axis=(1, 3))
    np.testing.assert_allclose(targets.of(kept.members[:1])[0], expected, atol=1e-6)


def test_the_mirrored_scene_is_mirrored_everywhere(kept):
    """Picture, map and inner points agree after a flip."""
    flipped = kept.flipped()
    np.testing.assert_array_equal(flipped.image, kept.image[:, ::-1])
    for before, after in zip(kept.inner_points, flipped.inner_points, strict=True):
        assert kept.region_map[before[1], before[0]] == flipped.region_map[after[1], after[0]]


def test_batches_are_the_same_for_the_same_seed_and_after_a_restart(tmp_path):
    """Batch number n is the same whether counted from the start or started there, across epochs."""
    store = SceneStore(tmp_path, 0, SCENES_PER_SHARD, IMAGE_SIZE)
    store.render_missing()
    whole, late = store.batches(10, seed=1, start=0), store.batches(10, seed=1, start=3)
    sequence = [next(whole) for _ in range(5)]
    for expected in sequence[3:]:
        for first, second in zip(expected, next(late), strict=True):
            np.testing.assert_array_equal(first.image, second.image)
            np.testing.assert_array_equal(first.members, second.members)
    assert not np.array_equal(sequence[0][0].image, sequence[2][0].image)  # the second epoch is shuffled anew
