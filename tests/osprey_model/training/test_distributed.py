"""Claims about several processes: they train the same weights as one, and accelerate reads the shipped configs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import DistributedType
from safetensors.torch import load_file

from osprey_model.training.run import TrainingRun
from osprey_model.training.stages import LoraOptions
from osprey_model.training.train import train

ROOT = Path(__file__).parents[3]
CONFIGS = ROOT / "osprey_model" / "training" / "accelerate"


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["3", "lora"])
def test_two_processes_equal_one(stage: str, tiny: Path, scenes: Path, tmp_path: Path) -> None:
    """With DDP over gloo, each process takes half of a batch of unequal samples; losses and weights are the same."""
    one, two = tmp_path / "one", tmp_path / "two"
    data = scenes / "region_data.json"
    options = ["--max-steps", "4", "--learning-rate", "1e-3", "--batch-size", "4", "--log-steps", "1", "--cpu"]
    if stage == "lora":  # dropout draws differ between one process and two
        options += ["--lora-dropout", "0"]
    command = [sys.executable, "-W", "ignore", "-m", "accelerate.commands.launch", "--main_process_port", "0",
               "--config_file", str(CONFIGS / "ddp_cpu.yaml"), "-m", "cli.main", "train", "--stage", stage,
               "--model", str(tiny), "--data", str(data), "--out", str(two), *options]  # fmt: skip
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=tmp_path, env=environ, check=True, timeout=240)
    expected = train(
        TrainingRun(
            "lora" if stage == "lora" else "3", tiny, data, one, max_steps=4, learning_rate=1e-3, batch_size=4,
            log_steps=1, device="cpu", progress=False, lora=LoraOptions(dropout=0) if stage == "lora" else None,
        )
    )  # fmt: skip
    got = json.loads((two / "result.json").read_text())
    assert [loss for _, loss in got["losses"]] == pytest.approx([loss for _, loss in expected.losses], abs=2e-5)
    name = "adapter_model.safetensors" if stage == "lora" else "model.safetensors"
    ours, theirs = load_file(one / name), load_file(two / name)
    assert max(float((ours[key] - theirs[key]).abs().max()) for key in ours) < 1e-3 / 2


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_shards_equal_one_process_and_continue(tiny: Path, scenes: Path, tmp_path: Path) -> None:
    """FSDP2 over gloo with the shipped fsdp.yaml gives the losses and weights of one process, also when continued."""
    one, two = tmp_path / "one", tmp_path / "two"
    given: dict[str, Any] = {
        "stage": "3", "model": tiny, "data": scenes / "region_data.json", "max_steps": 4, "save_steps": 2,
        "learning_rate": 1e-3, "batch_size": 4, "log_steps": 1, "device": "cpu", "progress": False,
    }  # fmt: skip
    expected = train(TrainingRun(out=one, **given))
    _train_in_shards(two, given)
    got = json.loads((two / "result.json").read_text())
    assert [loss for _, loss in got["losses"]] == pytest.approx([loss for _, loss in expected.losses], abs=2e-5)
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (one, two))
    assert max(float((ours[key] - theirs[key]).abs().max()) for key in ours) < 1e-3 / 2
    shutil.rmtree(two / "checkpoint-4")
    _train_in_shards(two, {**given, "resume": True})
    continued = load_file(two / "model.safetensors")
    assert all(continued[key].equal(theirs[key]) for key in theirs)


def _train_in_shards(out: Path, given: dict[str, object]) -> None:
    """Train on the CPU in two processes with FSDP2."""
    config = yaml.safe_load((CONFIGS / "fsdp.yaml").read_text()) | {"num_processes": 2, "use_cpu": True}
    (out.parent / "fsdp.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-W", "ignore", "-m", "accelerate.commands.launch", "--main_process_port", "0",
               "--config_file", str(out.parent / "fsdp.yaml"), str(ROOT / "tests" / "support" / "fsdp_on_cpu.py"),
               json.dumps({**given, "out": out}, default=str)]  # fmt: skip
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run(command, env=environ, check=True, timeout=180)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ddp", DistributedType.MULTI_GPU),
        ("ddp_cpu", DistributedType.MULTI_CPU),
        ("fsdp", DistributedType.FSDP),
        ("zero2", DistributedType.DEEPSPEED),
        ("zero3", DistributedType.DEEPSPEED),
    ],
)
def test_configuration_is_understood(name: str, kind: DistributedType) -> None:
    """Accelerate knows every key; the kind is that of the file name; the config sets no precision."""
    config = load_config_from_file(str(CONFIGS / f"{name}.yaml"))
    assert config.distributed_type == kind
    assert config.mixed_precision == "no"
    assert {path.stem for path in CONFIGS.glob("*.yaml")} == {"ddp", "ddp_cpu", "fsdp", "zero2", "zero3"}
