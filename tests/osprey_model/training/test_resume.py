"""Claims about continuation: a run that is killed and continued gives the same result as one that is not."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from osprey_model.training.checkpoints import checkpoint_folder, checkpoints, newest, seal
from osprey_model.training.run import RunDiffers, RunExists, TrainingRun
from osprey_model.training.train import train

ROOT = Path(__file__).parents[3]


@pytest.fixture
def settings(tiny: Path, scenes: Path) -> dict[str, object]:
    """Return settings with every kind of state: dropout, several epochs, gradient accumulation, evaluations."""
    data = scenes / "region_data.json"
    return {
        "stage": "lora", "model": tiny, "data": data, "held_out": data, "max_steps": 12, "batch_size": 3,
        "device_batch_size": 1, "eval_steps": 3, "patience": 100, "log_steps": 1, "learning_rate": 1e-3, "seed": 7,
        "device": "cpu", "progress": False,
    }  # fmt: skip


def start(out: Path, settings: dict[str, object]) -> subprocess.Popen[bytes]:
    """Start the run in another process; it continues from the checkpoint in `out`, if there is one."""
    code = (
        "import json, sys, torch; from pathlib import Path\n"
        "from osprey_model.training.run import TrainingRun; from osprey_model.training.train import train\n"
        "torch.set_num_threads(int(sys.argv[3])); given = json.loads(sys.argv[1])\n"
        "given |= {name: Path(given[name]) for name in ('model', 'data', 'held_out')}\n"
        "train(TrainingRun(out=Path(sys.argv[2]), resume=True, **given))"
    )
    given = json.dumps(settings, default=str)
    threads = str(torch.get_num_threads())  # the count of this process; a new process might choose another one
    return subprocess.Popen([sys.executable, "-W", "ignore", "-c", code, given, str(out), threads], cwd=ROOT)


def kill_when(process: subprocess.Popen[bytes], reached: Path) -> None:
    """Send SIGKILL as soon as a path exists."""
    deadline = time.monotonic() + 120
    while not reached.exists():
        assert process.poll() is None, f"the run ended before {reached.name} was there"
        assert time.monotonic() < deadline
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def test_killed_run_gives_the_same_curve_and_weights(settings: dict[str, object], tmp_path: Path) -> None:
    """A run that is killed while it writes a checkpoint, then continued, is equal to the last bit."""
    whole = train(TrainingRun(out=tmp_path / "whole", **settings))
    out = tmp_path / "killed"
    kill_when(start(out, settings), checkpoint_folder(out, 9) / "trained.safetensors")
    # The incomplete folder exists; the newest complete checkpoint is the one before it.
    assert checkpoint_folder(out, 9).exists()
    assert newest(out) == checkpoint_folder(out, 6)
    continued = train(TrainingRun(out=out, resume=True, **settings))
    assert [step for step, _ in continued.losses] == list(range(1, 13))
    assert continued.losses == whole.losses
    assert continued.held_out_losses == whole.held_out_losses
    ours, theirs = (load_file(folder / "adapter_model.safetensors") for folder in (out, tmp_path / "whole"))
    assert all(ours[name].equal(theirs[name]) for name in theirs)


def test_other_settings_do_not_continue_a_run(settings: dict[str, object], tmp_path: Path) -> None:
    """A folder with checkpoints is an error without `resume`, and with `resume` if a setting differs."""
    settings = {**settings, "max_steps": 3}
    train(TrainingRun(out=tmp_path, **settings))
    with pytest.raises(RunExists, match="another folder"):
        train(TrainingRun(out=tmp_path, **settings))
    with pytest.raises(RunDiffers, match="seed: was 7, is 8"):
        train(TrainingRun(out=tmp_path, resume=True, **{**settings, "seed": 8}))


def test_changed_data_of_the_same_size_do_not_continue_a_run(
    settings: dict[str, object], scenes: Path, tmp_path: Path
) -> None:
    """The content of annotation files is compared, not only their length."""
    data = tmp_path / "data"
    shutil.copytree(scenes, data)
    settings = {**settings, "max_steps": 3, "data": data / "region_data.json", "held_out": None, "eval_steps": None}
    settings |= {"patience": None}
    train(TrainingRun(out=tmp_path / "out", **settings))
    entries = (data / "region.json").read_text()
    (data / "region.json").write_text(entries.replace("boat", "goat"))
    with pytest.raises(RunDiffers, match=r"data: was .*sha256:"):
        train(TrainingRun(out=tmp_path / "out", resume=True, **settings))
    (data / "region.json").write_text(entries)
    train(TrainingRun(out=tmp_path / "out", resume=True, **settings))


def test_a_checkpoint_with_a_truncated_file_is_incomplete(tmp_path: Path) -> None:
    """A checkpoint with a shortened file is not used, and neither is one without a seal."""
    for step in (5, 10, 15):
        folder = checkpoint_folder(tmp_path, step)
        folder.mkdir()
        (folder / "weights").write_bytes(b"12345")
        if step < 15:
            seal(folder)
    assert newest(tmp_path) == checkpoint_folder(tmp_path, 10)
    (checkpoint_folder(tmp_path, 10) / "weights").write_bytes(b"123")
    assert newest(tmp_path) == checkpoint_folder(tmp_path, 5)
    assert [folder.name for folder in checkpoints(tmp_path)] == ["checkpoint-5", "checkpoint-10", "checkpoint-15"]
