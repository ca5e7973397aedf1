"""A tiny model and three drawn scenes, which the tests of the training share."""

from __future__ import annotations

import dataclasses

import pytest

from demo.training.osprey.osprey_scenes import SceneCache, draw_cache
from osprey_model.config import OspreyConfig


@pytest.fixture(scope="session")
def tiny_config() -> OspreyConfig:
    return dataclasses.replace(
        OspreyConfig.preset("osprey-nano"),
        image_size=64,
        vision_depths=(1, 1, 1, 1),
        vision_dims=(8, 16, 24, 32),
        mask_embed_dim=32,
        mask_shape=14,
        vocab_size=700,
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=2,
        mask_token_id=None,
        pos_token_id=None,
    )


@pytest.fixture(scope="session")
def drawn_scenes(tiny_config, tmp_path_factory) -> SceneCache:
    folder = tmp_path_factory.mktemp("scenes")
    assert list(draw_cache(folder, range(3), tiny_config.image_size)) == [3]
    return SceneCache.open(folder)
