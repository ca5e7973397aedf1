"""Osprey at its full size with random weights: written as released, loaded strictly, one question answered."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.speed.full_size import missing


def run_bench(folder: Path, *arguments: str) -> dict[str, Any]:
    """Run the benchmark in its own process; no file is left in `folder`."""
    command = [sys.executable, "-m", "bench.speed.full_size", "--folder", str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[3])
    assert done.returncode == 0, done.stderr
    assert list(folder.iterdir()) == []
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert figures["answer_tokens"] > 0
    return figures


def test_every_measurement_runs_at_a_small_size(tmp_path: Path) -> None:
    """Writing, loading, asking and one LoRA step in bfloat16 run at a small size as they do at the full one."""
    scratch, kept = tmp_path / "scratch", tmp_path / "kept.json"
    scratch.mkdir()
    figures = run_bench(scratch, "--device", "cpu", "--preset", "osprey-nano", "--train", "--out", str(kept))
    assert 0 < figures["train_loss"] < 20
    assert figures["adapter_mb"] > 0
    assert figures["train_step_s"] <= figures["train_all_s"]
    assert json.loads(kept.read_text()) == figures


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_full_size_loads_answers_and_learns_on_a_gpu(tmp_path: Path) -> None:
    """In bfloat16, the full size with one LoRA step fits into 24 GB."""
    lacking = missing(tmp_path)
    if lacking:
        pytest.skip(lacking)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    figures = run_bench(scratch, "--device", "cuda", "--out", str(tmp_path / "kept.json"))
    assert figures["peak_gpu_memory_gb"] < 20
    assert figures["train_peak_gpu_memory_gb"] < 24


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_full_size_loads_and_answers_on_the_cpu(tmp_path: Path) -> None:
    """14 GB of sharded bfloat16 load in less than 20 GB of memory, in their own process."""
    lacking = missing(tmp_path)
    if lacking:
        pytest.skip(lacking)
    figures = run_bench(tmp_path, "--device", "cpu", "--map-weights")
    assert figures["parameters"] == 6_983_363_264
    assert figures["peak_memory_gb"] < 20
