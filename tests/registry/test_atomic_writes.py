"""Claims about atomic writes: a reader sees the old content or the new one, whatever stops the writer."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from registry.atomic_writes import Disk, locked
from tests.support.worker_process import CHECKOUT


def names_in(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_file_is_replaced_and_nothing_else_stays(tmp_path):
    """The file holds what was written last, and the temporary file is gone."""
    Disk().write(tmp_path / "pointer", b"one\n")
    Disk().write(tmp_path / "pointer", b"two\n")
    assert (tmp_path / "pointer").read_bytes() == b"two\n"
    assert names_in(tmp_path) == ["pointer"]


def write_half(path) -> None:
    """Write a part of a file and fail."""
    path.write_bytes(b"half")
    path.touch(exist_ok=False)


@pytest.mark.parametrize("durable", [True, False])
def test_failed_replacement_leaves_the_old_file(tmp_path, durable):
    """If the block raises, the old content stays and the temporary file is removed."""
    target = tmp_path / "file"
    target.write_bytes(b"old")
    with pytest.raises(FileExistsError), Disk().replacement(target, durable=durable) as scratch:
        write_half(scratch)
    assert (target.read_bytes(), names_in(tmp_path)) == (b"old", ["file"])
    with Disk().replacement(target, durable=durable) as scratch:
        scratch.write_bytes(b"new")
    assert (target.read_bytes(), names_in(tmp_path)) == (b"new", ["file"])


def test_kill_at_every_step_leaves_the_old_file_or_the_new(tmp_path):
    """The writer is stopped before each of its steps; a reader sees one of the two contents in full."""
    steps: list[str] = []
    Disk(steps.append).write(tmp_path / "count", b"new")
    assert steps == ["write count", "write count", "fsync count", "rename count", f"fsync folder {tmp_path.name}"]
    for number in range(len(steps)):
        target = tmp_path / str(number) / "file"
        target.parent.mkdir()
        target.write_bytes(b"old")
        child = os.fork()
        if child == 0:
            left = iter([True] * number)
            Disk(lambda _, left=left: None if next(left, False) else os._exit(0)).write(target, b"new")
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert target.read_bytes() == (b"new" if number == len(steps) - 1 else b"old")
        Disk().write(target, b"new")
        assert target.read_bytes() == b"new"


def test_temporary_file_of_a_killed_writer_is_removed_after_a_day(tmp_path):
    """A later write removes an old temporary file of the same target; one that may be in use stays."""
    for name, age_s in ((".file.1-1.new", 2 * 24 * 3600), (".file.2-2.new", 60), (".other.1-1.new", 2 * 24 * 3600)):
        (tmp_path / name).write_bytes(b"half")
        os.utime(tmp_path / name, (time.time() - age_s,) * 2)
    Disk().write(tmp_path / "file", b"whole")
    assert names_in(tmp_path) == [".file.2-2.new", ".other.1-1.new", "file"]


def test_lock_ends_with_the_process_that_holds_it(tmp_path):
    """A second process waits for the lock; when its holder is killed, the next one gets it."""
    hold = "import sys, time; from pathlib import Path; from registry.atomic_writes import locked\n"
    hold += "with locked(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(60)"
    command = [sys.executable, "-c", hold, str(tmp_path / "lock")]
    with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        started = time.monotonic()
        child = os.fork()
        if child == 0:
            with locked(tmp_path / "lock"):
                os._exit(0)
        time.sleep(0.3)
        assert os.waitpid(child, os.WNOHANG) == (0, 0)
        holder.kill()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert time.monotonic() - started < 30
