"""A folder of downloaded bytes with a limit of size, which several worker processes may share."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from registry.atomic_writes import Disk

_KEEP_AFTER_EVICTION = 0.8


class DiskCache:
    """Bytes by key. Files appear by an atomic rename, so a reader never sees an incomplete file."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._num_bytes: int | None = None  # counted at the first write and, with other processes, at eviction

    def get(self, key: str) -> bytes | None:
        """Return the bytes stored under `key`, or None."""
        path = self._path(key)
        try:
            data = path.read_bytes()
            os.utime(path)  # the file with the oldest use is evicted first
        except FileNotFoundError:
            return None
        return data

    def put(self, key: str, data: bytes) -> None:
        """Store `data`; remove what was used longest ago if the folder has become too large."""
        if len(data) > self._max_bytes:
            return
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        with Disk().replacement(path, durable=False) as part:
            part.touch(mode=0o600)  # an image may be private
            part.write_bytes(data)
        if self._num_bytes is None:
            self._num_bytes = sum(size for _, size, _ in self._entries())
        else:
            self._num_bytes += len(data)
        if self._num_bytes > self._max_bytes:
            self._evict()

    def remove(self, key: str) -> None:
        """Remove what is stored under `key`, if anything."""
        self._path(key).unlink(missing_ok=True)

    def _evict(self) -> None:
        entries = sorted(self._entries())
        total = sum(size for _, size, _ in entries)
        for _, size, path in entries:
            if total <= self._max_bytes * _KEEP_AFTER_EVICTION:
                break
            path.unlink(missing_ok=True)
            total -= size
        self._num_bytes = total

    def _entries(self) -> list[tuple[float, int, Path]]:
        found = []
        for path in self._folder.glob("??/*"):
            try:
                stat = path.stat()
            except FileNotFoundError:  # another process evicted it
                continue
            found.append((stat.st_mtime, stat.st_size, path))
        return found

    def _path(self, key: str) -> Path:
        digest = hashlib.sha256(key.encode()).hexdigest()
        return self._folder / digest[:2] / digest
