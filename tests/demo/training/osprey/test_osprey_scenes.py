"""Claims about training scenes on disk: they are the drawn scenes."""

import numpy as np
import pytest

from demo.scenes import make_scene
from demo.training.osprey.osprey_scenes import RECORDS_FILE, SceneCache, draw_cache, record_of


def test_a_cache_gives_back_what_was_drawn(tmp_path):
    assert list(draw_cache(tmp_path, [3, 4], image_size=64))[-1] == 2
    cache = SceneCache.open(tmp_path)
    scenes = [make_scene(3), make_scene(4)]
    assert cache.records == tuple(record_of(scene) for scene in scenes)
    for region_map, scene in zip(cache.region_maps_NHW, scenes, strict=True):
        assert np.array_equal(region_map, scene.region_map)


def test_a_cache_that_was_not_finished_is_not_read(tmp_path):
    list(draw_cache(tmp_path, [3], image_size=64))
    (tmp_path / RECORDS_FILE).unlink()
    with pytest.raises(FileNotFoundError):
        SceneCache.open(tmp_path)
