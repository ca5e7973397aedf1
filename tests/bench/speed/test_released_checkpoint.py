"""The layout that the full-size benchmark writes loads as a released checkpoint does, at a small size."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from bench.speed.released_checkpoint import write_released_config, write_released_tokenizer, write_released_weights
from osprey_model.config import OspreyConfig
from osprey_model.inputs.tokenizer import OspreyTokenizer
from osprey_model.weights import convert
from osprey_model.weights.build import load_osprey
from osprey_model.weights.checkpoint import read_weights
from osprey_model.weights.convert import convert_checkpoint

NANO = Path(__file__).parents[3] / "demo" / "checkpoints" / "osprey-nano"
# A released config.json does not hold the sizes of tower and extractor: here they are the full ones.
CONFIG = OspreyConfig(
    vocab_size=1100, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=4,
)  # fmt: skip


def test_released_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards with their index, no tokenizer.json; converted in several shards it holds the same tensors."""
    released = tmp_path / "released"
    released.mkdir()
    write_released_config(released, CONFIG)
    write_released_tokenizer(released, CONFIG.vocab_size, NANO)
    write_released_weights(released, CONFIG, num_shards=3)
    assert sorted(path.name for path in released.glob("*.bin")) == [
        f"pytorch_model-0000{idx}-of-00003.bin" for idx in (1, 2, 3)
    ]
    assert not (released / "tokenizer.json").exists()
    model = load_osprey(released, dtype=torch.bfloat16)
    assert dataclasses.asdict(model.sizes) == dataclasses.asdict(CONFIG)
    tokenizer = OspreyTokenizer.from_folder(released)
    assert tokenizer.vocab_size == CONFIG.vocab_size
    text = "What is the category of <mask><pos>?"
    assert tokenizer.encode(text)[:-5] == OspreyTokenizer.from_folder(NANO).encode(text)[:-5]

    monkeypatch.setattr(convert, "_SHARD_BYTES", 100 << 20)
    convert_checkpoint(released, tmp_path / "converted")
    assert len(list((tmp_path / "converted").glob("model-*-of-*.safetensors"))) > 2
    expected, written = read_weights(released), read_weights(tmp_path / "converted")
    assert expected.keys() == written.keys()
    assert all(torch.equal(written[name], expected[name]) for name in expected)
    assert all(torch.equal(value, model.state_dict()[name].to(value.dtype)) for name, value in expected.items())
