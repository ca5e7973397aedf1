"""Writes that survive a kill: a file or folder is there complete or not at all.

Everything goes through `Disk`, which names each step before it does it, so that a test can die at any of them.
Neighbour: `registry/versions.py` keeps versions and the champion pointer with it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

_CHUNK_BYTES = 1 << 20


def _nothing(step: str) -> None:
    """No test looks on."""


class Disk:
    """The writing half of the file system. `on_step` is called with a name before every write, fsync and rename."""

    def __init__(self, on_step: Callable[[str], None] = _nothing) -> None:
        self._on_step = on_step

    def make_folder(self, path: Path) -> None:
        """A folder that may exist already; its entry in the parent is on disk afterwards."""
        if path.is_dir():
            return
        self._on_step(f"mkdir {path.name}")
        path.mkdir(parents=True, exist_ok=True)
        self.sync_folder(path.parent)

    def write(self, path: Path, data: bytes) -> None:
        """Replace a file's content: temporary file, fsync, rename, fsync of the folder."""
        scratch = path.with_name(f".{path.name}.{os.getpid()}.new")
        with scratch.open("wb") as file:
            # In two pieces, so that a test can leave a half-written file behind.
            for piece in (data[: len(data) // 2], data[len(data) // 2 :]):
                self._on_step(f"write {path.name}")
                file.write(piece)
                file.flush()
            self._on_step(f"fsync {path.name}")
            os.fsync(file.fileno())
        self.rename(scratch, path)

    def copy(self, source: Path, target: Path) -> tuple[int, str]:
        """Copy one file into a folder that nobody reads yet; its size in bytes and SHA-256."""
        digest, size = hashlib.sha256(), 0
        with source.open("rb") as reader, target.open("wb") as writer:
            while chunk := reader.read(_CHUNK_BYTES):
                self._on_step(f"write {target.name}")
                writer.write(chunk)
                digest.update(chunk)
                size += len(chunk)
            writer.flush()
            self._on_step(f"fsync {target.name}")
            os.fsync(writer.fileno())
        return size, digest.hexdigest()

    def rename(self, source: Path, target: Path) -> None:
        """Put a file or folder in its place in one step, and that step on disk."""
        self._on_step(f"rename {target.name}")
        source.replace(target)
        self.sync_folder(target.parent)

    def sync_folder(self, path: Path) -> None:
        """Put a folder's list of entries on disk."""
        self._on_step(f"fsync folder {path.name}")
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other writers out; the lock goes with the process that holds it, however that ends."""
    with path.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def sha256_of(path: Path) -> str:
    """Of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
