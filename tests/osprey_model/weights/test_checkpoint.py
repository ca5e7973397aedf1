"""Weights are loaded completely or not at all, from every layout of a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from osprey_model.config import OspreyConfig
from osprey_model.modeling.osprey import OspreyForCausalLM
from osprey_model.modeling.weight_names import CheckpointError, to_reference
from osprey_model.weights.build import build_osprey, load_osprey
from osprey_model.weights.checkpoint import load_vision_tower, save_checkpoint

GAMMA = ".blocks.0.gamma"


@pytest.fixture
def reference_state(tiny_model: OspreyForCausalLM) -> dict[str, Tensor]:
    """The state dict of a released checkpoint of this size, in bfloat16, rotary buffers included."""
    state = {name: tensor.to(torch.bfloat16) for name, tensor in tiny_model.state_dict().items()}
    return to_reference(state, tiny_model.sizes)


def write_released_layout(folder: Path, config: OspreyConfig, state: dict[str, Tensor], num_shards: int = 3) -> None:
    """Write sharded pytorch .bin files with an index."""
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    weight_map = {name: f"pytorch_model-{idx % num_shards}.bin" for idx, name in enumerate(sorted(state))}
    for shard in set(weight_map.values()):
        torch.save({name: state[name] for name in state if weight_map[name] == shard}, folder / shard)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))


def assert_same_weights(model: OspreyForCausalLM, state: dict[str, Tensor]) -> None:
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name].to(tensor.dtype)), name


def test_sharded_bin_of_a_released_checkpoint(
    tiny_config: OspreyConfig, reference_state: dict[str, Tensor], tmp_path: Path
) -> None:
    """All weights of a checkpoint in shards, in bfloat16, with rotary buffers, are loaded."""
    write_released_layout(tmp_path, tiny_config, reference_state)
    assert_same_weights(load_osprey(tmp_path), reference_state)


def test_gamma_may_be_called_weight(
    tiny_config: OspreyConfig, reference_state: dict[str, Tensor], tmp_path: Path
) -> None:
    """The layer scale is found under the name that transformers 4.31 gives it when it saves again."""
    renamed = {name.replace(".gamma", ".weight"): tensor for name, tensor in reference_state.items()}
    assert renamed.keys() != reference_state.keys()
    write_released_layout(tmp_path, tiny_config, renamed)
    assert_same_weights(load_osprey(tmp_path), reference_state)


def test_a_missing_an_unexpected_and_a_misshapen_tensor_are_named(
    tiny_model: OspreyForCausalLM, tmp_path: Path
) -> None:
    """One message lists all problems of a folder's weights."""
    save_checkpoint(tiny_model, tmp_path)
    state = dict(tiny_model.state_dict())
    del state["mask_extractor.res2.bias"]
    state["stray.weight"] = torch.zeros(1)
    state["lm_head.weight"] = torch.zeros(3, 3)
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError) as error:
        load_osprey(tmp_path)
    message = str(error.value)
    assert "1 missing: mask_extractor.res2.bias" in message
    assert "1 unexpected: stray.weight" in message
    assert "lm_head.weight (expected (96, 32), got (3, 3))" in message


def test_an_incomplete_tower_is_named_and_changes_nothing(tiny_config: OspreyConfig, tmp_path: Path) -> None:
    """If a tensor of the tower is missing in the CLIP file, no other one is loaded."""
    model = build_osprey(tiny_config)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    prefix = "model.vision_tower.vision_tower."
    tower = {name.removeprefix(prefix): value + 1 for name, value in before.items() if name.startswith(prefix)}
    missing = next(name for name in tower if GAMMA in name)
    del tower[missing]
    save_file(tower, tmp_path / "clip.safetensors")
    with pytest.raises(CheckpointError) as error:
        load_vision_tower(model, tmp_path / "clip.safetensors")
    assert f"1 missing: {prefix}{missing}" in str(error.value)
    assert_same_weights(model, before)


def test_a_pickle_with_code_is_refused(tiny_config: OspreyConfig, tmp_path: Path) -> None:
    """A `.bin` file with other objects than tensors raises an error."""
    (tmp_path / "config.json").write_text(json.dumps(tiny_config.to_dict()))
    torch.save({"model": Path("anything")}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="cannot be read as tensors only"):
        load_osprey(tmp_path)


def test_a_truncated_file_is_named(tiny_model: OspreyForCausalLM, tmp_path: Path) -> None:
    """A truncated file raises an error that names it; it is not read as an empty model."""
    save_checkpoint(tiny_model, tmp_path)
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be read"):
        load_osprey(tmp_path)


def test_what_is_missing_in_a_folder_is_said(
    tiny_config: OspreyConfig, reference_state: dict[str, Tensor], tmp_path: Path
) -> None:
    """A missing config, missing weights and a missing shard raise an error that names them."""
    with pytest.raises(FileNotFoundError, match=r"config\.json does not exist"):
        load_osprey(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(tiny_config.to_dict()))
    with pytest.raises(FileNotFoundError, match=r"no weights in .*model\.safetensors"):
        load_osprey(tmp_path)
    write_released_layout(tmp_path, tiny_config, reference_state)
    (tmp_path / "pytorch_model-1.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"names the shard pytorch_model-1\.bin"):
        load_osprey(tmp_path)


def test_the_tower_of_an_open_clip_file(tiny_config: OspreyConfig, tmp_path: Path) -> None:
    """`visual.*` is loaded into the tower; the text half and CLIP's head are ignored; other weights do not change."""
    torch.manual_seed(1)
    source, target = build_osprey(tiny_config), build_osprey(tiny_config)
    prefix = "model.vision_tower.vision_tower."
    tower = {name.removeprefix(prefix): value for name, value in source.state_dict().items() if prefix in name}
    extra = {"visual.head.mlp.fc1.weight": torch.zeros(2, 2), "token_embedding.weight": torch.zeros(2, 2)}
    save_file({**tower, **extra}, tmp_path / "clip.safetensors")
    norm_before = target.state_dict()["lm_head.weight"].clone()
    load_vision_tower(target, tmp_path / "clip.safetensors")
    for name, value in source.state_dict().items():
        if prefix in name:
            assert torch.equal(target.state_dict()[name], value)
    assert torch.equal(target.state_dict()["lm_head.weight"], norm_before)
    assert any(GAMMA in name for name in tower)
