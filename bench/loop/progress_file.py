"""What a simulation has done so far: one JSON file, replaced whole after every phase.

notes = ProgressFile(folder / "simulation.json", settings)
result = notes.phase("round 0: annotate", work)     # runs once, however often the simulation is killed
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

_SETTINGS, _PHASES = "settings", "phases"


class SimulationDiffersError(Exception):
    """The folder holds a simulation with other settings."""


class ProgressFile:
    """Phases by name, each with its seconds and its result. `settings` are those it was begun with."""

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Read the file, or begin it.

        Raises:
            SimulationDiffersError: it was begun with other settings.
        """
        self._path = path
        if path.exists():
            self._data = json.loads(path.read_text(encoding="utf-8"))
            if self._data[_SETTINGS] != dict(settings):
                raise SimulationDiffersError(
                    f"{path.parent} holds a simulation with {self._data[_SETTINGS]}, not {dict(settings)}; "
                    "continue that one, or name another folder"
                )
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._data = {_SETTINGS: dict(settings), _PHASES: {}}
            self._write()

    def phase(self, name: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The result of a phase: from the file, or of `work`, which is then kept. After a kill `work` is repeated."""
        known = self._data[_PHASES].get(name)
        if known is None:
            started = time.monotonic()
            result = work()
            known = {"seconds": round(time.monotonic() - started, 1), "result": result}
            self._data[_PHASES][name] = known
            self._write()
        return dict(known["result"])

    def seconds(self) -> dict[str, float]:
        """Of every phase that is done; of one that was killed, the time since its last start."""
        return {name: phase["seconds"] for name, phase in self._data[_PHASES].items()}

    def _write(self) -> None:
        scratch = self._path.with_suffix(".new")
        scratch.write_text(json.dumps(self._data, indent=1) + "\n", encoding="utf-8")
        scratch.replace(self._path)
