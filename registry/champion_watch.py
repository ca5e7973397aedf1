"""When a serving process has to look at the champion again: one `os.stat` of the pointer between two jobs.

Neighbours: `registry/versions.py` moves the pointer, `worker/runtime.py` loads what it names.
"""

from __future__ import annotations

import time
from pathlib import Path

from registry.versions import BASE, ModelVersion, Registry

RETRY_S = 30.0  # a champion that did not load is tried again so often: a 7B model takes half a minute to fail


class ChampionWatch:
    """Remembers the pointer as it was last read. Without a registry the base is served for ever."""

    def __init__(self, folder: Path | None) -> None:
        self._registry = None if folder is None else Registry(folder)
        self._seen: tuple[int, int, int] | None = None
        self._retry_at_s = float("inf")

    def moved(self) -> bool:
        """Whether the pointer is another file than when `read` was called, or a failed champion is due again."""
        if self._registry is None:
            return False
        return self._signature() != self._seen or time.monotonic() >= self._retry_at_s

    def read(self) -> str:
        """The champion's name, `base` without one.

        Raises:
            RegistryError: the pointer cannot be read.
        """
        self._retry_at_s = float("inf")
        self._seen = self._signature()  # before reading: a move in between is then seen next time
        return BASE if self._registry is None else self._registry.champion_name()

    def version(self, name: str) -> ModelVersion | None:
        """The version of a name, None for the base.

        Raises:
            RegistryError: it is not there or not complete.
        """
        return None if self._registry is None or name == BASE else self._registry.version(name)

    def fallbacks(self) -> tuple[str, ...]:
        """What served before the champion, nearest first, the base last.

        Raises:
            RegistryError: the pointer cannot be read.
        """
        earlier = () if self._registry is None else self._registry.earlier_champions()
        return tuple(dict.fromkeys((*earlier, BASE)))

    def try_again_later(self) -> None:
        """What was read does not load: `moved` says so again after a while."""
        self._retry_at_s = time.monotonic() + RETRY_S

    def _signature(self) -> tuple[int, int, int] | None:
        if self._registry is None:
            return None
        try:
            stat = self._registry.pointer.stat()
        except OSError:
            return None
        return stat.st_ino, stat.st_mtime_ns, stat.st_size
