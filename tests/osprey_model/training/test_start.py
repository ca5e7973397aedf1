"""Claims about a start checkpoint from published parts: it has exactly their weights, and it can be trained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from cli.main import app
from osprey_model.modeling.weight_names import CheckpointError
from osprey_model.training.run import TrainingRun
from osprey_model.training.start import assemble_start
from osprey_model.training.train import train
from osprey_model.weights.build import load_osprey


@pytest.fixture
def parts(tiny: Path, tmp_path: Path) -> dict[str, Path]:
    """Write the tiny model as the files of the published parts; return their paths."""
    state = load_osprey(tiny).state_dict()
    llm = tmp_path / "vicuna"
    llm.mkdir()
    for name in ("config.json", "tokenizer.json"):
        shutil.copyfile(tiny / name, llm / name)
    ours = ("model.vision_tower.", "model.mm_projector.", "mask_extractor.")
    decoder = {k: v for k, v in state.items() if not k.startswith(ours)}
    torch.save(decoder, llm / "pytorch_model.bin")
    tower = "model.vision_tower.vision_tower."
    clip = {k.removeprefix(tower): v for k, v in state.items() if k.startswith(tower)}
    torch.save({**clip, "text.token_embedding.weight": torch.zeros(3, 3)}, tmp_path / "clip.bin")
    torch.save({k: v for k, v in state.items() if "mm_projector." in k}, tmp_path / "mm_projector.bin")
    return {"llm": llm, "clip": tmp_path / "clip.bin", "projector": tmp_path / "mm_projector.bin"}


def test_start_has_the_parts_and_a_fresh_extractor(parts: dict[str, Path], tiny: Path, tmp_path: Path) -> None:
    """`osprey models start` with a projector takes all weights from the parts, except for the mask extractor."""
    given = [
        str(parts["llm"]),
        str(parts["clip"]),
        str(tmp_path / "start"),
        "--projector",
        str(parts["projector"]),
        "--seed",
        "5",
    ]
    answer = CliRunner().invoke(app, ["models", "start", *given])
    assert answer.exit_code == 0, answer.output
    got, expected = load_osprey(tmp_path / "start").state_dict(), load_osprey(tiny).state_dict()
    for name, value in expected.items():
        same = got[name].equal(value.bfloat16().float())
        assert same != name.startswith("mask_extractor."), name


def test_stage_1_begins_at_a_start(parts: dict[str, Path], scenes: Path, tmp_path: Path) -> None:
    """Without a projector file the projector has new weights, and stage 1 trains them."""
    model = assemble_start(parts["llm"], parts["clip"], tmp_path / "start", dtype=torch.float32)
    run = TrainingRun(
        "1", tmp_path / "start", scenes / "caption_data.json", tmp_path / "out", max_steps=3, batch_size=2,
        device="cpu", progress=False,
    )  # fmt: skip
    assert train(run).steps == 3
    weights = load_osprey(tmp_path / "out").model.mm_projector[0].weight
    assert not weights.equal(model.model.mm_projector[0].weight)


def test_parts_that_do_not_fit_are_named(parts: dict[str, Path], tmp_path: Path) -> None:
    """The error names file and key of a part that does not fit."""
    torch.save({"model.mm_projector.0.weight": torch.zeros(2, 2)}, parts["projector"])
    with pytest.raises(CheckpointError, match=r"mm_projector\.bin does not fit.*missing.*mm_projector\.2\.bias"):
        assemble_start(parts["llm"], parts["clip"], tmp_path / "start", projector=parts["projector"])
    config = json.loads((parts["llm"] / "config.json").read_text())
    (parts["llm"] / "config.json").write_text(json.dumps({**config, "intermediate_size": 32}))
    with pytest.raises(CheckpointError, match="vicuna does not fit"):
        assemble_start(parts["llm"], parts["clip"], tmp_path / "start")
