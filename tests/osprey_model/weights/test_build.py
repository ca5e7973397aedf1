"""Presets and the round trip config -> model -> folder -> model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from osprey_model.config import PRESETS, OspreyConfig
from osprey_model.modeling.osprey import OspreyForCausalLM
from osprey_model.modeling.weight_names import to_reference
from osprey_model.weights.build import build_osprey, load_osprey
from osprey_model.weights.checkpoint import save_checkpoint

GOLDEN = Path(__file__).parents[2] / "data" / "golden"


def test_the_full_size_preset_has_exactly_the_released_keys() -> None:
    """The preset has 688 names with the released shapes, rotary buffers included; no weights are allocated."""
    config = PRESETS["osprey-7b"]
    state = to_reference(build_osprey(config, device="meta").state_dict(), config)
    expected = json.loads((GOLDEN / "osprey_7b_state_dict.json").read_text())
    assert {name: list(tensor.shape) for name, tensor in state.items()} == expected
    assert len(state) == 688


def test_a_saved_model_loads_with_the_same_outputs(tiny_model: OspreyForCausalLM, tmp_path: Path) -> None:
    """A model loaded from its config.json and model.safetensors has the same outputs."""
    save_checkpoint(tiny_model, tmp_path)
    loaded = load_osprey(tmp_path)
    assert loaded.sizes == tiny_model.sizes
    ids = torch.tensor([[1, 5, 9, 20]])
    with torch.inference_mode():
        torch.testing.assert_close(loaded(ids).logits, tiny_model(ids).logits, atol=0, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_mask_extractor_stays_float32(tiny_model: OspreyForCausalLM, tmp_path: Path, dtype: torch.dtype) -> None:
    """Loading in 16 bit casts everything except the mask extractor."""
    save_checkpoint(tiny_model, tmp_path)
    loaded = load_osprey(tmp_path, dtype=dtype)
    assert {parameter.dtype for parameter in loaded.mask_extractor.parameters()} == {torch.float32}
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {dtype}


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_config_survives_its_json(name: str) -> None:
    """from_dict restores the config from the JSON of to_dict."""
    config = OspreyConfig.preset(name)
    assert OspreyConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_transformers_own_saving_and_loading(tiny_model: OspreyForCausalLM, tmp_path: Path) -> None:
    """After save_pretrained and the Auto classes outputs are equal, and the extractor is float32 in bfloat16."""
    tiny_model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert isinstance(loaded, OspreyForCausalLM)
    assert loaded.sizes == tiny_model.sizes == load_osprey(tmp_path).sizes
    ids = torch.tensor([[1, 5, 9, 20]])
    with torch.inference_mode():
        torch.testing.assert_close(loaded(ids).logits, tiny_model(ids).logits, atol=1e-6, rtol=0)
    half = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in half.mask_extractor.parameters()} == {torch.float32}
    assert {parameter.dtype for parameter in half.model.parameters()} == {torch.bfloat16}
