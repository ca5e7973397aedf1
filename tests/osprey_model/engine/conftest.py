"""An engine with the golden model. Its weights are random, but it has every part, and its greedy answers differ."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from osprey_model.engine.engine import Osprey
from osprey_model.inputs.tokenizer import OspreyTokenizer
from osprey_model.modeling.osprey import OspreyForCausalLM


@pytest.fixture(scope="session")
def golden_tokenizer(golden_dir: Path) -> OspreyTokenizer:
    return OspreyTokenizer.from_folder(golden_dir / "tokenizer")


@pytest.fixture
def osprey(golden_model: OspreyForCausalLM, golden_tokenizer: OspreyTokenizer) -> Osprey:
    """An engine with empty caches for each test."""
    return Osprey(golden_model, golden_tokenizer, model_version="golden")


@pytest.fixture(scope="session")
def image(golden_dir: Path) -> Image.Image:
    return Image.open(golden_dir / "preprocess" / "raw_0.png").convert("RGB")


@pytest.fixture
def masks() -> list[np.ndarray]:
    """Three regions, in resolutions other than the image's."""
    grid_y, grid_x = np.mgrid[0:97, 0:143]
    disc = (grid_y - 40) ** 2 + (grid_x - 60) ** 2 < 25**2
    box = np.zeros((200, 300), bool)
    box[20:120, 150:280] = True
    stripe = np.zeros((97, 143), bool)
    stripe[:, 90:140] = True
    return [disc, box, stripe]
