"""Writes that survive a kill: a file or folder is complete or absent, never half-written.

`Disk` announces each step before it takes it, so that a test can kill the process at any of them. A torn file or folder
may be left under a hidden name; no reader looks there, and a later write removes it.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock

_CHUNK_BYTES = 1 << 20
_ABANDONED_S = 24 * 3600  # no write takes so long: the process of an older temporary file was killed


def _ignore(step: str) -> None:
    """Do nothing: the default for `on_step`."""


class Disk:
    """The writing half of the file system.

    Args:
        on_step: called with a name before every write, fsync and rename.
    """

    def __init__(self, on_step: Callable[[str], None] = _ignore) -> None:
        self._on_step = on_step

    def make_folder(self, path: Path) -> None:
        """Create a folder unless it exists, and flush its entry in the parent folder to disk."""
        if path.is_dir():
            return
        self._on_step(f"mkdir {path.name}")
        path.mkdir(parents=True, exist_ok=True)
        self.sync_folder(path.parent)

    def write(self, path: Path, data: bytes) -> None:
        """Replace the content of a file: temporary file, fsync, rename, fsync of the folder."""
        with self.replacement(path) as scratch:
            self._write(scratch, data, path.name)

    def write_new(self, path: Path, data: bytes) -> None:
        """Write a file into a folder that no process reads yet, and flush it to disk. Parent folders are created."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._write(path, data, path.name)
        self._sync_file(path, path.name)

    @contextlib.contextmanager
    def replacement(self, path: Path, *, durable: bool = True) -> Iterator[Path]:
        """Yield a temporary path beside `path`; at the end of the block, what was written there replaces `path`.

        If the block raises, the temporary file is removed and `path` stays as it is.

        Args:
            path: the file to replace; its folder must exist.
            durable: flush file and folder to disk. False: a loss of power may lose the new content.
        """
        pattern = f".{glob.escape(path.name)}.*.new"
        for leftover in path.parent.glob(pattern):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - leftover.lstat().st_mtime > _ABANDONED_S:
                    leftover.unlink()
        scratch = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.new")
        scratch.unlink(missing_ok=True)
        try:
            yield scratch
            if durable:
                self._sync_file(scratch, path.name)
                self.rename(scratch, path)
            else:
                scratch.replace(path)
        finally:
            scratch.unlink(missing_ok=True)

    def copy(self, source: Path, target: Path) -> tuple[int, str]:
        """Copy a file into a folder that no process reads yet; return its size in bytes and its SHA-256."""
        digest, size = hashlib.sha256(), 0
        with source.open("rb") as reader, target.open("wb") as writer:
            while chunk := reader.read(_CHUNK_BYTES):
                self._on_step(f"write {target.name}")
                writer.write(chunk)
                digest.update(chunk)
                size += len(chunk)
        self._sync_file(target, target.name)
        return size, digest.hexdigest()

    def publish(self, folder: Path, target: Path) -> None:
        """Flush a finished folder with its subfolders to disk and rename it to `target`, which must not exist."""
        for each in (*(path for path in folder.rglob("*") if path.is_dir()), folder):
            self.sync_folder(each)
        self.rename(folder, target)

    def rename(self, source: Path, target: Path) -> None:
        """Rename a file or folder in one step and flush that step to disk."""
        self._on_step(f"rename {target.name}")
        source.replace(target)
        self.sync_folder(target.parent)

    def sync_folder(self, path: Path) -> None:
        """Flush the list of entries of a folder to disk."""
        self._on_step(f"fsync folder {path.name}")
        _fsync(path)

    def _write(self, path: Path, data: bytes, name: str) -> None:
        with path.open("wb") as file:
            # In two pieces, so that a test can leave a half-written file behind.
            for piece in (data[: len(data) // 2], data[len(data) // 2 :]):
                self._on_step(f"write {name}")
                file.write(piece)
                file.flush()

    def _sync_file(self, path: Path, name: str) -> None:
        self._on_step(f"fsync {name}")
        _fsync(path)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Exclude other writers while the block runs. The kernel drops the lock when the process ends, even by a kill."""
    with FileLock(path):
        yield


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
