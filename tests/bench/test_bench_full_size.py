"""Osprey at its full size with random weights: written as released, loaded strictly, one question answered."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.bench_full_size import missing


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_full_size_loads_and_answers_on_the_cpu(tmp_path: Path) -> None:
    """14 GB of sharded bfloat16 in less than 20 GB of memory, in a process of its own."""
    lacking = missing(tmp_path)
    if lacking:
        pytest.skip(lacking)
    command = [
        sys.executable,
        "-m",
        "bench.bench_full_size",
        "--device",
        "cpu",
        "--folder",
        str(tmp_path),
        "--map-weights",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["parameters"] == 6_983_363_264
    assert figures["answer_tokens"] > 0
    assert figures["peak_memory_gb"] < 20
    assert list(tmp_path.iterdir()) == []
