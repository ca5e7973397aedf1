"""The hidden folder in which an export is written before it gets its name, one process at a time per series.

A killed export leaves only hidden files and folders, which the next export of the same series removes.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from job_queue.errors import OspreyError


class ExportRefused(OspreyError):
    """The target folder cannot be written, or a folder is not a complete export."""


@contextmanager
def staging_folder(out: Path, series: str) -> Iterator[Path]:
    """Yield an empty folder beside the versions of `out`. At the end it is removed, unless it was renamed.

    Args:
        out: the folder that holds versions; it is created.
        series: name of the series of versions; only one process at a time may write a series.

    Raises:
        ExportRefused: `out` is a file, or another process writes this series now.
    """
    if out.exists() and not out.is_dir():
        raise ExportRefused(f"{out} is a file; give a folder")
    out.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out / f".{series}.lock", blocking=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise ExportRefused(f"another export of {series} into {out} is running; wait until it has ended") from error
    try:
        folder = out / f".{series}.incoming"
        shutil.rmtree(folder, ignore_errors=True)  # of a killed export
        for scratch in out.glob(f".{series}.latest.*.new"):
            scratch.unlink()
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        lock.release()
