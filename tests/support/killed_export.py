"""Kill an export at each of its writes, check the files that are left, and repeat the export.

    python tests/support/killed_export.py FOLDER

Forks one export per write, kills it there with SIGKILL, and prints one JSON line: the number of writes, and the faults.
"""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from learning.export import version
from registry.atomic_writes import Disk
from tests.support.exports import export_project
from tests.support.submitted import CAR, PROJECT, annotation, region, task
from worker.images.resolver import ImageResolver
from worker.settings import Settings

WRITES = ("mkdir", "open", "fsync", "rename", "replace", "unlink", "rmdir")


def drawn_task(task_id: int) -> dict[str, Any]:
    """Return a task with one region, whose image is in its data."""
    rng = np.random.default_rng(task_id)
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 255, (24, 32, 3), np.uint8)).save(buffer, "PNG")
    url = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    mask = np.zeros((24, 32), np.bool_)
    mask[4:12, 5:20] = True
    return task(task_id, annotation(task_id, region(f"r{task_id}", CAR, mask=mask)), url=url)


def export(out: Path, cache: Path, num_tasks: int) -> version.DataVersion:
    """Export the first tasks with their images."""
    tasks = [drawn_task(idx) for idx in range(1, num_tasks + 1)]
    return export_project(PROJECT, tasks, out, None, ImageResolver(Settings(cache_dir=cache)))


def strike_at(number: int) -> Callable[[], int]:
    """Count every write from now on and kill the process before write `number`; return the counter."""
    count = 0

    def strike() -> None:
        nonlocal count
        count += 1
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)

    def wrapped(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            strike()
            return original(*args, **options)

        return call

    for name in WRITES:
        setattr(os, name, wrapped(getattr(os, name)))
    write = Disk.write_new

    def torn(disk: Disk, path: Path, data: bytes) -> None:
        if count + 1 == number:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data[: len(data) // 2])
        strike()
        write(disk, path, data)

    Disk.write_new = torn  # type: ignore[method-assign]
    return lambda: count


def files_of(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every file below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def complaints(out: Path, cache: Path, before: str, expected: dict[str, bytes]) -> list[str]:
    """Return the faults after a kill, and after the next export."""
    found = []
    latest = version.latest_version(out, PROJECT["id"])
    if latest is None:
        return ["no latest version"]
    for folder in (folder for folder in out.iterdir() if folder.is_dir() and not folder.name.startswith(".")):
        version.read_export(folder)  # raises if a version is not complete
    if latest.name != before and files_of(latest) != {
        name.partition("/")[2]: data for name, data in expected.items() if name.startswith(f"{latest.name}/")
    }:
        found.append("the latest version differs")
    export(out, cache, 2)
    if files_of(out) != expected:
        found.append(f"after the next export: {sorted(set(files_of(out)) ^ set(expected))}")
    return found


def main(folder: Path) -> None:
    """Count the writes of one export, then kill one export at each."""
    cache, base, whole = folder / "cache", folder / "base", folder / "whole"
    before = export(base, cache, 1).path.name
    shutil.copytree(base, whole)
    pid = os.fork()
    if pid == 0:
        count = strike_at(-1)
        export(whole, cache, 2)
        (folder / "count").write_text(str(count()))
        os._exit(0)
    os.waitpid(pid, 0)
    expected, writes = files_of(whole), int((folder / "count").read_text())
    wrong = {}
    for number in range(1, writes + 1):
        out = folder / "out"
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(base, out)
        pid = os.fork()
        if pid == 0:
            strike_at(number)
            export(out, cache, 2)
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        if not os.WIFSIGNALED(status):
            wrong[number] = ["it was not killed"]
        elif found := complaints(out, cache, before, expected):
            wrong[number] = found
    print(json.dumps({"writes": writes, "wrong": wrong}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
