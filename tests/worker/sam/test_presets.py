"""Checkpoints load completely or not at all."""

import json

import pytest
import torch
from segment_anything import sam_model_registry

from job_queue.errors import ModelUnavailable
from worker.sam.presets import PRESETS, SamConfig, build_sam, load_sam, save_sam

TINY = SamConfig(
    "sam-tiny-test", 32, 2, 2, (1,), image_size=64, patch_size=8, window_size=4, prompt_dim=16,
    decoder_heads=2, decoder_mlp_dim=32, iou_head_dim=16,
)  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    save_sam(build_sam(TINY), TINY, tmp_path / "sam")
    return tmp_path / "sam"


def test_official_sizes_match_segment_anything():
    """vit_b, built on the meta device, has segment_anything's own keys and shapes."""
    with torch.device("meta"):
        ours, theirs = build_sam(PRESETS["vit_b"]).state_dict(), sam_model_registry["vit_b"]().state_dict()
    assert {name: value.shape for name, value in ours.items()} == {name: value.shape for name, value in theirs.items()}


def test_saved_weights_come_back(folder):
    """A float16 checkpoint loads as float32 with the values that were saved."""
    torch.manual_seed(0)
    expected = build_sam(TINY).state_dict()
    sam, model_version = load_sam(folder)
    assert model_version.startswith("sam-tiny-test-")
    for name, value in sam.state_dict().items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, expected[name].half().float(), rtol=0, atol=0)


def test_model_version_follows_the_content(folder):
    """Other weights give another version."""
    _, before = load_sam(folder)
    torch.manual_seed(1)
    save_sam(build_sam(TINY), TINY, folder)
    assert load_sam(folder)[1] != before


@pytest.mark.parametrize("damage", ["missing_weights", "unknown_key", "other_sizes", "truncated", "not_json"])
def test_a_damaged_folder_is_refused(folder, damage):
    """Any fault in a folder is ModelUnavailable, with its path."""
    config_path, weights_path = folder / "config.json", folder / "model.safetensors"
    config = json.loads(config_path.read_text())
    if damage == "missing_weights":
        weights_path.unlink()
    elif damage == "truncated":
        weights_path.write_bytes(weights_path.read_bytes()[:100])
    elif damage == "not_json":
        config_path.write_text("{")
    else:
        config |= {"depth": 3} if damage == "unknown_key" else {"encoder_depth": 3}
        config_path.write_text(json.dumps(config))
    with pytest.raises(ModelUnavailable, match=str(folder)):
        load_sam(folder)


def test_a_pth_of_another_model_is_refused(tmp_path):
    """An official file is recognised by its encoder width; any other file is refused by name."""
    path = tmp_path / "other.pth"
    torch.save({"image_encoder.pos_embed": torch.zeros(1, 2, 2, 33)}, path)
    with pytest.raises(ModelUnavailable, match="encoder width is 33"):
        load_sam(path)


def test_a_pth_that_would_run_code_is_refused(tmp_path):
    """A pickle with a callable does not load, because only weights are read."""
    path = tmp_path / "evil.pth"
    torch.save({"image_encoder.pos_embed": print}, path)
    with pytest.raises(ModelUnavailable, match="safely"):
        load_sam(path)


def test_a_missing_path_and_a_bare_size_say_what_to_give(tmp_path, monkeypatch):
    """The message contains the expected forms; for a preset's name it asks for the file."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelUnavailable, match=r"config\.json"):
        load_sam(tmp_path / "nowhere")
    with pytest.raises(ModelUnavailable, match=r"official \.pth"):
        load_sam(type(tmp_path)("vit_b"))
