"""The completed phases of a simulation: one JSON file, rewritten completely after every phase.

progress = ProgressFile(folder / "simulation.json", settings)
result = progress.phase("round 0: annotate", work)  # runs until it is completed once
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from registry.atomic_writes import Disk

_SETTINGS, _PHASES = "settings", "phases"


class SimulationDiffersError(Exception):
    """The folder contains a simulation with other settings."""


class ProgressFile:
    """Phases by name, each with its seconds and its result. `settings` are those of the simulation."""

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Read the file, or create it.

        Raises:
            SimulationDiffersError: it is of a simulation with other settings.
        """
        self._path = path
        if path.exists():
            self._data = json.loads(path.read_text(encoding="utf-8"))
            if self._data[_SETTINGS] != dict(settings):
                raise SimulationDiffersError(
                    f"{path.parent} holds a simulation with {self._data[_SETTINGS]}, not {dict(settings)}; "
                    "use these settings to continue it, or another folder"
                )
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._data = {_SETTINGS: dict(settings), _PHASES: {}}
            self._write()

    def phase(self, name: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return the result of a phase from the file, or run `work` and store its result."""
        known = self._data[_PHASES].get(name)
        if known is None:
            started = time.monotonic()
            result = work()
            known = {"seconds": round(time.monotonic() - started, 1), "result": result}
            self._data[_PHASES][name] = known
            self._write()
        return dict(known["result"])

    def seconds(self) -> dict[str, float]:
        """Return the seconds of every completed phase; of a phase that was killed, only its last run counts."""
        return {name: phase["seconds"] for name, phase in self._data[_PHASES].items()}

    def _write(self) -> None:
        Disk().write(self._path, (json.dumps(self._data, indent=1) + "\n").encode())
