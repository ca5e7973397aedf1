"""Which checkpoints of a run are whole: a run that is killed while it writes one leaves a torn folder.

A checkpoint counts once `complete.json` stands in it, which lists every file with its size and is written last,
in one step. Neighbours: `trainer.py` writes and seals, `train.py` asks for the newest.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

SEAL = "complete.json"
_PREFIX = "checkpoint-"


def checkpoint_folder(out: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return out / f"{_PREFIX}{step}"


def seal(folder: Path) -> None:
    """Declare a checkpoint whole; its bytes are on the disk before that."""
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


def is_whole(folder: Path) -> bool:
    """Sealed, and every listed file is there with its size."""
    try:
        sizes = json.loads((folder / SEAL).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return all((folder / name).is_file() and (folder / name).stat().st_size == size for name, size in sizes.items())


def checkpoints(out: Path) -> list[Path]:
    """Every checkpoint folder, torn ones included, oldest first."""
    found = [path for path in out.glob(f"{_PREFIX}*") if path.name.removeprefix(_PREFIX).isdigit()]
    return sorted(found, key=lambda path: int(path.name.removeprefix(_PREFIX)))


def newest(out: Path) -> Path | None:
    """The newest whole checkpoint."""
    return next((path for path in reversed(checkpoints(out)) if is_whole(path)), None)


def remove_torn(out: Path) -> None:
    """Folders that a kill left behind."""
    for path in checkpoints(out):
        if not is_whole(path):
            shutil.rmtree(path)


def prune(out: Path, *, keep: int, best: Path | None) -> None:
    """Remove all but the newest `keep` and the best one."""
    whole = [path for path in checkpoints(out) if is_whole(path)]
    for path in whole[: max(len(whole) - max(keep, 1), 0)]:
        if best is None or path.name != best.name:
            (path / SEAL).unlink()  # first: a removal that is killed half way leaves a torn folder, not a wrong one
            shutil.rmtree(path)
