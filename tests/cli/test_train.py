"""`osprey train`: the commands of docs/model/train.md run one after the other, with tiny files of the same names."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from cli.main import app
from osprey_model.config import OspreyConfig
from osprey_model.weights.build import build_osprey

ROOT = Path(__file__).parents[2]
NANO = ROOT / "demo" / "checkpoints" / "osprey-nano"
GOLDEN = ROOT / "tests" / "data" / "golden" / "osprey_tiny_a" / "data"
SIZES = {
    "image_size": 64, "vision_depths": (1, 1, 1, 1), "vision_dims": (8, 16, 24, 32), "vision_clip_embed_dim": None,
    "mask_embed_dim": 16, "mask_shape": 14, "vocab_size": 1024, "hidden_size": 32, "intermediate_size": 48,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 1024,
}  # fmt: skip


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files that the commands name."""
    config = OspreyConfig(**SIZES)
    state = build_osprey(config).state_dict()
    llm = tmp_path / "vicuna-7b-v1.5"
    llm.mkdir()
    (llm / "config.json").write_text(json.dumps(config.to_dict()))
    shutil.copyfile(NANO / "tokenizer.model", llm / "tokenizer.model")
    ours = ("model.vision_tower.", "model.mm_projector.", "mask_extractor.")
    torch.save({k: v for k, v in state.items() if not k.startswith(ours)}, llm / "pytorch_model.bin")
    tower = "model.vision_tower.vision_tower."
    clip = {k.removeprefix(tower): v for k, v in state.items() if k.startswith(tower)}
    torch.save(clip, tmp_path / "open_clip_pytorch_model.bin")
    image = next((GOLDEN / "imgs").iterdir()).name
    caption = {"image": image, "conversations": [{"from": "human", "value": "?"}, {"from": "gpt", "value": "A cup."}]}
    (tmp_path / "pairs.json").write_text(json.dumps([caption] * 2))
    images = str(GOLDEN / "imgs")
    rows = {
        "captions": {"type": "llava", "ann_file": "pairs.json", "img_prefix": images},
        "regions": {
            "type": "OspreyShortForm",
            "ann_file": str(GOLDEN / "osprey_short_form.json"),
            "img_prefix": images,
        },
    }
    for name, row in {**rows, "held_out": rows["regions"]}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps([row]))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def documented_commands() -> list[list[str]]:
    """The first block of the page."""
    page = (ROOT / "docs" / "model" / "train.md").read_text()
    block = re.search(r"```sh\n(.*?)```", page, re.DOTALL)
    assert block is not None
    return [line.split("#")[0].split()[1:] for line in block[1].splitlines()]


def test_documented_commands_run(workplace: Path) -> None:
    """From the published parts through all stages to an adapter."""
    commands = documented_commands()
    assert [command[:3] for command in commands[1:]] == [
        ["train", "--stage", stage] for stage in ("1", "2", "3", "lora")
    ]
    for command in commands:
        short = ["--max-steps", "1", "--batch-size", "1", "--cpu"] if command[0] == "train" else []
        answer = CliRunner().invoke(app, [*command, *short])
        assert answer.exit_code == 0, f"{command}: {answer.output}"
    assert (workplace / "adapter" / "adapter_model.safetensors").is_file()
    assert (workplace / "stage3" / "model.safetensors").is_file()


def test_what_cannot_be_trained_is_said(workplace: Path) -> None:
    """An unknown stage and a missing folder: a message, no traceback."""
    for stage, model, message in (("9", "x", "unknown stage '9'; known: 1, 2, 3, lora"), ("2", "nowhere", "nowhere")):
        command = ["train", "--stage", stage, "--model", model, "--data", "regions.json", "--out", "out"]
        answer = CliRunner().invoke(app, command)
        assert answer.exit_code == 1
        assert message in answer.output
