"""Find, mark and remove the checkpoints of a run. A run that is killed while it writes one leaves it incomplete.

A checkpoint is complete if it contains the file `complete.json`, its seal, and every file that the seal lists, with
its size. The seal is written last, by an atomic rename.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

SEAL = "complete.json"
_PREFIX = "checkpoint-"


def checkpoint_folder(out: Path, step: int) -> Path:
    """Return the folder of a step's checkpoint."""
    return out / f"{_PREFIX}{step}"


def seal(folder: Path) -> None:
    """Mark a checkpoint as complete, after all its files were flushed to the disk."""
    sizes = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb+") as file:
            os.fsync(file.fileno())
        sizes[path.relative_to(folder).as_posix()] = path.stat().st_size
    partial = folder / f".{SEAL}"
    with partial.open("w", encoding="utf-8") as file:
        json.dump(sizes, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(folder / SEAL)


def is_complete(folder: Path) -> bool:
    """Return whether a checkpoint is sealed, and every file that the seal lists exists with its size."""
    try:
        sizes = json.loads((folder / SEAL).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return all((folder / name).is_file() and (folder / name).stat().st_size == size for name, size in sizes.items())


def checkpoints(out: Path) -> list[Path]:
    """Return every checkpoint folder, including incomplete ones, oldest first."""
    found = [path for path in out.glob(f"{_PREFIX}*") if path.name.removeprefix(_PREFIX).isdigit()]
    return sorted(found, key=lambda path: int(path.name.removeprefix(_PREFIX)))


def newest(out: Path) -> Path | None:
    """Return the newest complete checkpoint; None: there is none."""
    return next((path for path in reversed(checkpoints(out)) if is_complete(path)), None)


def remove_incomplete(out: Path) -> None:
    """Remove incomplete checkpoints, which a killed run left behind."""
    for path in checkpoints(out):
        if not is_complete(path):
            shutil.rmtree(path)


def prune(out: Path, *, keep: int, best: Path | None) -> None:
    """Remove complete checkpoints, except for the newest `keep` (at least one) and the best one."""
    complete = [path for path in checkpoints(out) if is_complete(path)]
    for path in complete[: max(len(complete) - max(keep, 1), 0)]:
        if best is None or path.name != best.name:
            (path / SEAL).unlink()  # first, so that a removal that is killed half way leaves an incomplete folder
            shutil.rmtree(path)
