"""Claims about a killed simulation: it is continued, but not with other settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.loop.progress_file import ProgressFile, SimulationDiffersError


def test_a_phase_runs_once_and_its_result_is_kept(tmp_path: Path) -> None:
    calls = []

    def work() -> dict[str, Any]:
        calls.append(1)
        return {"found": 3}

    for _ in range(2):
        notes = ProgressFile(tmp_path / "sim" / "simulation.json", {"seed": 1})
        assert notes.phase("annotate", work) == {"found": 3}
    assert len(calls) == 1
    assert notes.seconds().keys() == {"annotate"}


def test_a_phase_that_failed_runs_again(tmp_path: Path) -> None:
    notes = ProgressFile(tmp_path / "simulation.json", {})
    with pytest.raises(OSError, match="away"):
        notes.phase("train", lambda: (_ for _ in ()).throw(OSError("away")))
    assert ProgressFile(tmp_path / "simulation.json", {}).phase("train", lambda: {"ok": 1}) == {"ok": 1}


def test_other_settings_are_refused(tmp_path: Path) -> None:
    ProgressFile(tmp_path / "simulation.json", {"seed": 1})
    with pytest.raises(SimulationDiffersError, match="another folder"):
        ProgressFile(tmp_path / "simulation.json", {"seed": 2})
