"""Fixtures for the tests of osprey_model: the golden tiny model, and models with new weights of a few kilobytes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from osprey_model.config import OspreyConfig
from osprey_model.modeling.osprey import OspreyForCausalLM
from osprey_model.weights.build import build_osprey, load_osprey

SHIPPED_GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "osprey_tiny_a"


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """Return the golden set: the shipped copy, or the folder that OSPREY_GOLDEN_DIR names."""
    return Path(os.environ.get("OSPREY_GOLDEN_DIR", SHIPPED_GOLDEN))


@pytest.fixture(scope="session")
def golden_model(golden_dir: Path) -> OspreyForCausalLM:
    """Return the golden set's model in float32 and eval mode."""
    return load_osprey(golden_dir)


@pytest.fixture
def tiny_config() -> OspreyConfig:
    """Return the config of a very small model that has every part."""
    return OspreyConfig(
        image_size=64,
        vision_depths=(1, 1, 1, 1),
        vision_dims=(8, 16, 24, 32),
        vision_layer_scale_init=0.5,
        vision_clip_embed_dim=None,
        mask_embed_dim=16,
        mask_shape=14,
        vocab_size=96,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
    )


@pytest.fixture
def tiny_model(tiny_config: OspreyConfig) -> OspreyForCausalLM:
    """Return a model with new weights from a fixed seed, in eval mode."""
    torch.manual_seed(0)
    return build_osprey(tiny_config).eval()
