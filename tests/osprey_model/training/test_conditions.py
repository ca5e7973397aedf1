"""A continuation computes as the run did before: threads are set back, all else is compared."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from cli.main import app
from osprey_model.training.checkpoints import SEAL, checkpoint_folder, seal
from osprey_model.training.conditions import CONDITIONS_FILE, Conditions, NotExact, read_conditions
from osprey_model.training.run import TrainingResult, TrainingRun
from osprey_model.training.train import train
from tests.support.torch_threads import torch_threads

STOPPED_AT = 3


@pytest.fixture
def run(tiny: Path, scenes: Path, tmp_path: Path) -> TrainingRun:
    """Six short steps with a checkpoint in the middle."""
    return TrainingRun(
        stage="lora", model=tiny, data=scenes / "region_data.json", out=tmp_path / "out", max_steps=6, batch_size=3,
        save_steps=STOPPED_AT, keep_checkpoints=5, log_steps=1, learning_rate=1e-3, seed=7, device="cpu",
        progress=False,
    )  # fmt: skip


@pytest.fixture
def whole(run: TrainingRun) -> TrainingResult:
    """The run to its end on one thread; then its folder as a kill after step 3 would leave it."""
    with torch_threads(1):
        result = train(run)
    torn = checkpoint_folder(run.out, 6)
    (torn / SEAL).unlink()
    return result


def rewrite(run: TrainingRun, **changes: object) -> Path:
    """Let the checkpoint say something else of its conditions; None removes a value."""
    folder = checkpoint_folder(run.out, STOPPED_AT)
    values = json.loads((folder / CONDITIONS_FILE).read_text()) | changes
    (folder / CONDITIONS_FILE).write_text(json.dumps({k: v for k, v in values.items() if v is not None}))
    seal_again(folder)
    return folder


def seal_again(folder: Path) -> None:
    """Declare a changed checkpoint whole; a seal does not list itself."""
    (folder / SEAL).unlink()
    seal(folder)


def again(run: TrainingRun, *, exact: bool = False) -> TrainingResult:
    return train(dataclasses.replace(run, resume=True, exact=exact))


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.name == "osprey_model.training.conditions"]


def test_the_checkpoint_says_what_it_was_computed_on(run: TrainingRun, whole: TrainingResult) -> None:
    """Every field, and the seal covers the file."""
    folder = checkpoint_folder(run.out, STOPPED_AT)
    said = read_conditions(folder)
    assert said.keys() == {field.name for field in dataclasses.fields(Conditions)}
    assert said["threads"] == 1
    assert said["device_type"] == "cpu"
    assert said["dtype"] == "float32"
    assert said["world_size"] == 1
    assert said["torch"] == torch.__version__
    assert said["cpu_capability"] == torch.backends.cpu.get_cpu_capability()
    assert said["device_name"]
    assert CONDITIONS_FILE in json.loads((folder / SEAL).read_text())


def test_another_thread_count_is_set_back(
    run: TrainingRun, whole: TrainingResult, caplog: pytest.LogCaptureFixture
) -> None:
    """One thread before the stop, three in the process that continues: the same curve, and it has three again."""
    with torch_threads(3), caplog.at_level(logging.WARNING):
        continued = again(run, exact=True)
        assert torch.get_num_threads() == 3
    assert continued.losses == whole.losses
    assert read_conditions(checkpoint_folder(run.out, 6))["threads"] == 1
    assert complaints(caplog) == []


def test_other_versions_are_one_line_in_the_log(
    run: TrainingRun, whole: TrainingResult, caplog: pytest.LogCaptureFixture
) -> None:
    """Both values of each condition, and what it means."""
    folder = rewrite(run, torch="1.0.0", cpu_capability="ABACUS")
    with caplog.at_level(logging.WARNING):
        continued = again(run)
    now = torch.backends.cpu.get_cpu_capability()
    assert complaints(caplog) == [
        f"the continuation of {folder} is not bit for bit: cpu_capability: expected 'ABACUS', is {now!r}; "
        f"torch: expected '1.0.0', is '{torch.__version__}'"
    ]
    assert continued.steps == whole.steps


def test_exact_refuses_and_leaves_the_checkpoint(run: TrainingRun, whole: TrainingResult) -> None:
    """What was expected, what came, what to do; without `exact` the same folder goes on."""
    folder = rewrite(run, world_size=2)
    before = torch.get_num_threads()
    with pytest.raises(NotExact, match=r"world_size: expected 2, is 1\. Continue under the recorded conditions"):
        again(run, exact=True)
    assert torch.get_num_threads() == before
    assert folder.is_dir()
    assert again(run).steps == 6


def test_the_command_refuses_with_exit_code_1(run: TrainingRun, whole: TrainingResult) -> None:
    """`osprey train --resume --exact`."""
    rewrite(run, transformers="4.0.0")
    given = {
        "stage": run.stage, "model": run.model, "data": run.data, "out": run.out, "max-steps": 6, "batch-size": 3,
        "save-steps": STOPPED_AT, "learning-rate": 1e-3, "seed": 7,
    }  # fmt: skip
    options = [part for name, value in given.items() for part in (f"--{name}", str(value))]
    result = CliRunner().invoke(app, ["train", *options, "--cpu", "--resume", "--exact"])
    assert result.exit_code == 1, result.output
    assert "Not trained:" in result.stderr
    assert "transformers: expected '4.0.0', is '" in result.stderr
    assert "without --exact" in result.stderr


def test_a_checkpoint_of_an_older_release_is_continued(
    run: TrainingRun, whole: TrainingResult, caplog: pytest.LogCaptureFixture
) -> None:
    """No record: a line in the log; `exact` cannot be promised."""
    folder = checkpoint_folder(run.out, STOPPED_AT)
    (folder / CONDITIONS_FILE).unlink()
    seal_again(folder)
    with pytest.raises(NotExact, match="does not record its conditions"):
        again(run, exact=True)
    with caplog.at_level(logging.WARNING):
        assert again(run).steps == 6
    assert len(complaints(caplog)) == 1


def test_a_record_of_a_newer_release_is_understood(tmp_path: Path) -> None:
    """Unknown keys are ignored, wrong types and no JSON too."""
    path = tmp_path / CONDITIONS_FILE
    path.write_text('{"threads": 2, "moon": "full"}')
    assert read_conditions(tmp_path) == {"threads": 2}
    for text in ("[1]", "{", ""):
        path.write_text(text)
        assert read_conditions(tmp_path) == {}


def test_exact_is_about_a_continuation(run: TrainingRun) -> None:
    """A run that begins has nothing to be equal to."""
    with pytest.raises(ValueError, match="give resume, too"):
        dataclasses.replace(run, exact=True)
