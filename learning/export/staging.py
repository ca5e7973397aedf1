"""A folder that appears complete or not at all, and a pointer that is never half-written.

Everything is written into a hidden folder beside the target, flushed to the disk, and renamed. Whoever dies on the
way leaves only hidden ones, which the next export of the same series removes.
Neighbour: `registry/atomic_writes.py` (the steps that survive a kill).
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from job_queue.errors import OspreyError
from registry.atomic_writes import Disk


class ExportRefused(OspreyError):
    """The target folder cannot be written, or a folder is not a complete export."""


@contextmanager
def staging_folder(out: Path, series: str) -> Iterator[Path]:
    """An empty folder beside the versions of `out`, removed at the end unless `publish` has moved it away.

    Args:
        out: the folder that holds versions; made if absent.
        series: whose versions; one process at a time may write one series.

    Raises:
        ExportRefused: `out` is a file, or another process writes this series now.
    """
    if out.exists() and not out.is_dir():
        raise ExportRefused(f"{out} is a file; give a folder")
    out.mkdir(parents=True, exist_ok=True)
    with (out / f".{series}.lock").open("w") as lock:
        try:
            # The kernel lets go of it when the process ends, however it ends.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ExportRefused(f"another export of {series} into {out} is running; wait until it has ended") from error
        folder = out / f".{series}.incoming"
        shutil.rmtree(folder, ignore_errors=True)  # of an export that was killed
        for scratch in out.glob(f".{series}.latest.*.new"):
            scratch.unlink()
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def write_file(path: Path, data: bytes) -> None:
    """Write a new file and flush it to the disk; its folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def publish(folder: Path, target: Path) -> None:
    """Give a finished folder its name in one step. `target` must not exist."""
    disk = Disk()
    for each in (*(path for path in folder.rglob("*") if path.is_dir()), folder):
        disk.sync_folder(each)
    disk.rename(folder, target)


def point(pointer: Path, name: str) -> None:
    """Let the file `pointer` hold `name`; a reader sees the old name or the new one."""
    Disk().write(pointer, f"{name}\n".encode())
