"""How a serving process notices that the champion has changed: one `os.stat` of the pointer between two jobs."""

from __future__ import annotations

import time
from pathlib import Path

from registry.versions import BASE, ModelVersion, Registry

RETRY_S = 30.0  # between attempts to load a champion; a failed attempt with a 7B model takes that long, too


class ChampionWatch:
    """Remembers the pointer as it was last read. Without a registry the base checkpoint is always served."""

    def __init__(self, folder: Path | None) -> None:
        self._registry = None if folder is None else Registry(folder)
        self._seen: tuple[int, int, int] | None = None
        self._retry_at_s = float("inf")

    def moved(self) -> bool:
        """Return whether the pointer was replaced since `read`, or a champion that did not load is due again."""
        if self._registry is None:
            return False
        return self._signature() != self._seen or time.monotonic() >= self._retry_at_s

    def read(self) -> str:
        """Return the name of the champion; `base` if there is none.

        Raises:
            RegistryError: the pointer cannot be read.
        """
        self._retry_at_s = float("inf")
        self._seen = self._signature()  # before reading, so that a move in between is noticed next time
        return BASE if self._registry is None else self._registry.champion_name()

    def version(self, name: str) -> ModelVersion | None:
        """Return the version of this name; None for the base checkpoint.

        Raises:
            RegistryError: the version does not exist or is not complete.
        """
        return None if self._registry is None or name == BASE else self._registry.version(name)

    def fallbacks(self) -> tuple[str, ...]:
        """Return the champions before the current one, the latest first, and the base checkpoint last.

        Raises:
            RegistryError: the pointer cannot be read.
        """
        earlier = () if self._registry is None else self._registry.earlier_champions()
        return tuple(dict.fromkeys((*earlier, BASE)))

    def try_again_later(self) -> None:
        """Make `moved` return True again after `RETRY_S`, because the champion did not load."""
        self._retry_at_s = time.monotonic() + RETRY_S

    def _signature(self) -> tuple[int, int, int] | None:
        if self._registry is None:
            return None
        try:
            stat = self._registry.pointer.stat()
        except OSError:
            return None
        return stat.st_ino, stat.st_mtime_ns, stat.st_size
