"""Claims about conditions: a continuation restores the recorded thread count and compares everything else."""

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
from osprey_model.training.conditions import CONDITIONS_FILE, Conditions, NotExact, differences, read_conditions
from osprey_model.training.run import TrainingResult, TrainingRun
from osprey_model.training.train import train
from tests.support.torch_threads import torch_threads

STOPPED_AT = 3


@pytest.fixture
def run(tiny: Path, scenes: Path, tmp_path: Path) -> TrainingRun:
    """Return a run of six short steps with a checkpoint after the third."""
    return TrainingRun(
        stage="lora", model=tiny, data=scenes / "region_data.json", out=tmp_path / "out", max_steps=6, batch_size=3,
        save_steps=STOPPED_AT, keep_checkpoints=5, log_steps=1, learning_rate=1e-3, seed=7, device="cpu",
        progress=False,
    )  # fmt: skip


@pytest.fixture
def whole(run: TrainingRun) -> TrainingResult:
    """Train to the end on one thread, then make the last checkpoint incomplete, as a kill while it is written would."""
    with torch_threads(1):
        result = train(run)
    torn = checkpoint_folder(run.out, 6)
    (torn / SEAL).unlink()
    return result


def rewrite(run: TrainingRun, **changes: object) -> Path:
    """Change conditions that the checkpoint records; None removes a value. Return the checkpoint folder."""
    folder = checkpoint_folder(run.out, STOPPED_AT)
    values = json.loads((folder / CONDITIONS_FILE).read_text()) | changes
    (folder / CONDITIONS_FILE).write_text(json.dumps({k: v for k, v in values.items() if v is not None}))
    seal_again(folder)
    return folder


def seal_again(folder: Path) -> None:
    """Seal a changed checkpoint; the old seal is removed first, because a seal does not list itself."""
    (folder / SEAL).unlink()
    seal(folder)


def again(run: TrainingRun, *, exact: bool = False) -> TrainingResult:
    return train(dataclasses.replace(run, resume=True, exact=exact))


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.name == "osprey_model.training.conditions"]


def test_the_checkpoint_records_its_conditions(run: TrainingRun, whole: TrainingResult) -> None:
    """Every condition is recorded, and the seal lists the file."""
    folder = checkpoint_folder(run.out, STOPPED_AT)
    recorded = read_conditions(folder)
    assert recorded.keys() == {field.name for field in dataclasses.fields(Conditions)}
    assert recorded["threads"] == 1
    assert recorded["device_type"] == "cpu"
    assert recorded["dtype"] == "float32"
    assert recorded["world_size"] == 1
    assert recorded["torch"] == torch.__version__
    assert recorded["cpu_capability"] == torch.backends.cpu.get_cpu_capability()
    assert recorded["device_name"]
    assert CONDITIONS_FILE in json.loads((folder / SEAL).read_text())


def test_another_thread_count_is_set_back(
    run: TrainingRun, whole: TrainingResult, caplog: pytest.LogCaptureFixture
) -> None:
    """A run of one thread is continued in a process with three: the curve is the same, and afterwards it has three."""
    with torch_threads(3), caplog.at_level(logging.WARNING):
        continued = again(run, exact=True)
        assert torch.get_num_threads() == 3
    assert continued.losses == whole.losses
    assert read_conditions(checkpoint_folder(run.out, 6))["threads"] == 1
    assert warnings_of(caplog) == []


def test_other_versions_are_one_line_in_the_log(
    run: TrainingRun, whole: TrainingResult, caplog: pytest.LogCaptureFixture
) -> None:
    """The line has the recorded and the present value of each condition that differs."""
    folder = rewrite(run, torch="1.0.0", cpu_capability="ABACUS")
    with caplog.at_level(logging.WARNING):
        continued = again(run)
    now = torch.backends.cpu.get_cpu_capability()
    assert warnings_of(caplog) == [
        f"the continuation of {folder} is not bit for bit: cpu_capability: expected 'ABACUS', is {now!r}; "
        f"torch: expected '1.0.0', is '{torch.__version__}'"
    ]
    assert continued.steps == whole.steps


def test_exact_refuses_and_leaves_the_checkpoint(run: TrainingRun, whole: TrainingResult) -> None:
    """The error has both values and the next step; without `exact` the same folder can be continued."""
    folder = rewrite(run, world_size=2)
    before = torch.get_num_threads()
    with pytest.raises(NotExact, match=r"world_size: expected 2, is 1\. Continue under the recorded conditions"):
        again(run, exact=True)
    assert torch.get_num_threads() == before
    assert folder.is_dir()
    assert again(run).steps == 6


def test_the_command_refuses_with_exit_code_1(run: TrainingRun, whole: TrainingResult) -> None:
    """`osprey train --resume --exact` ends with exit code 1 and prints both versions."""
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
    """A checkpoint without conditions is continued with one warning; with `exact` it is an error."""
    folder = checkpoint_folder(run.out, STOPPED_AT)
    (folder / CONDITIONS_FILE).unlink()
    seal_again(folder)
    with pytest.raises(NotExact, match="does not record its conditions"):
        again(run, exact=True)
    with caplog.at_level(logging.WARNING):
        assert again(run).steps == 6
    assert len(warnings_of(caplog)) == 1


def test_a_record_of_a_newer_release_is_understood(tmp_path: Path) -> None:
    """Unknown keys are ignored, and so is a file that is not a JSON object."""
    path = tmp_path / CONDITIONS_FILE
    path.write_text('{"threads": 2, "moon": "full"}')
    assert read_conditions(tmp_path) == {"threads": 2}
    for text in ("[1]", "{", ""):
        path.write_text(text)
        assert read_conditions(tmp_path) == {}


@pytest.mark.parametrize(("device", "found"), [("cpu", ""), ("cuda", "device_type: only 'cpu' repeats every bit")])
def test_only_a_cpu_repeats_every_bit(device: str, found: str) -> None:
    """Equal conditions on a GPU are still a difference, because its kernels may add in another order."""
    now = Conditions(1, device, "name", "AVX2", "float32", 1, "2.14.1", "5.17.0", "1.2.0")
    assert differences(dataclasses.asdict(now), now).startswith(found)
    assert bool(differences(dataclasses.asdict(now), now)) == bool(found)


def test_exact_is_about_a_continuation(run: TrainingRun) -> None:
    """`exact` without `resume` is an error."""
    with pytest.raises(ValueError, match="exact applies only to the continuation of a run; use it with resume"):
        dataclasses.replace(run, exact=True)
