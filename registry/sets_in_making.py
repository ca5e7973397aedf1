"""Data sets that are made in the background: their maker records its progress, and a reader waits for them.

The maker keeps a note in the folder where the set appears when it is complete, and holds a lock there that ends with
its process. Without a note no process will make the set, so a missing one is an error at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from job_queue.errors import OspreyError
from job_queue.records import read_record, write_record
from registry.atomic_writes import Disk

_LOG = logging.getLogger(__name__)

WAITING = "wait for base set and replay data"  # the step that a fine-tune or gate reports meanwhile
WAIT_LIMIT_S = 1800.0
_NOTE, _LOCK = "making.json", ".making.lock"
_BEGIN_LIMIT_S = 300.0  # a set that is planned for longer has no maker
_LOCK_LIMIT_S = 5.0  # a reader holds the lock for a moment
_WRITE_EVERY_S = 0.5

State = Literal["planned", "making", "failed", "interrupted"]


class SetNotMade(OspreyError):
    """A data set is missing and no process makes it. The message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Making:
    """The progress of a set. `reason` says why it failed; `at` is the Unix time of the last change."""

    state: State
    done: int = 0
    total: int = 0
    reason: str = ""
    at: float = 0.0

    @property
    def is_given_up(self) -> bool:
        """Whether no process makes it any more, although it is not there."""
        return self.state in ("failed", "interrupted")

    @property
    def text(self) -> str:
        """The state as text, for a line of status."""
        if self.state == "failed":
            return f"failed: {self.reason}"
        if self.state == "interrupted":
            return "interrupted"
        percent = f", {100 * self.done // self.total} %" if self.total else ""
        return "waiting for its turn" if self.state == "planned" else f"being made{percent}"


def making_in(folder: Path) -> Making | None:
    """Return the progress in `folder`; None: nothing is made there, or all of it is done."""
    try:
        # A note that cannot be read is one that a machine lost while it went down.
        note = read_record(Making, (folder / _NOTE).read_bytes()) or Making("making")
    except (FileNotFoundError, NotADirectoryError):
        return None
    if note.state == "failed" or _is_locked(folder):
        return note
    if note.state == "planned" and time.time() - note.at < _BEGIN_LIMIT_S:
        return note
    # It may have ended well since the note was read.
    return dataclasses.replace(note, state="interrupted") if (folder / _NOTE).exists() else None


def making_of(path: Path) -> Making | None:
    """Return the progress of the set `path` (a folder, or a file in one); None: it is there, or will not be made."""
    if path.exists():
        return None
    for folder in path.parents[:2]:
        if (making := making_in(folder)) is not None:
            return making
    return None


def wait_for_sets(
    paths: Iterable[Path | None], on_progress: Callable[[str, int, int], None], *, limit_s: float = WAIT_LIMIT_S
) -> None:
    """Wait until every set that is being made is there.

    Args:
        paths: of the sets. None is skipped, and so is a set that is not being made: its reader reports what is wrong.
        on_progress: called about once a second with `WAITING`, the steps done and their total.
        limit_s: how long to wait for all of them.

    Raises:
        SetNotMade: making it failed, was interrupted, or takes longer than the limit.
    """
    began, is_logged = time.monotonic(), False
    for path in paths:
        while path is not None and (making := making_of(path)) is not None:
            if making.is_given_up:
                raise SetNotMade(f"{path} is missing; making it: {making.text}. {_REMEDY}")
            if time.monotonic() - began > limit_s:
                raise SetNotMade(f"{path} is missing after {limit_s:.0f} s: {making.text}. {_REMEDY}")
            if not is_logged:
                _LOG.info("%s is %s: waiting for it", path, making.text)
                is_logged = True
            on_progress(WAITING, making.done, making.total)
            time.sleep(1.0)


_REMEDY = "Run `make up` (or `docker compose up -d`) to make it, then repeat this"


def plan(folder: Path) -> None:
    """Record that the sets of `folder` will be made, unless a maker is already working."""
    folder.mkdir(parents=True, exist_ok=True)
    if not _is_locked(folder):
        _write(folder, Making("planned", at=time.time()))


@contextlib.contextmanager
def maker(folder: Path, total: int) -> Iterator[Callable[[], None]]:
    """Make the sets of `folder` inside the block; the function it yields is called after each of `total` steps.

    The note is removed when the block ends without an error; else it keeps the reason.

    Raises:
        SetNotMade: another process is making them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("a") as lock:
        _take(lock.fileno(), folder)
        done, written_at = 0, time.monotonic()
        _write(folder, Making("making", 0, total, at=time.time()))

        def step() -> None:
            nonlocal done, written_at
            done += 1
            if time.monotonic() - written_at > _WRITE_EVERY_S:
                written_at = time.monotonic()
                _write(folder, Making("making", done, total, at=time.time()))

        try:
            yield step
        except Exception as error:
            _write(folder, Making("failed", done, total, f"{type(error).__name__}: {error}", time.time()))
            raise
        (folder / _NOTE).unlink()


def _take(handle: int, folder: Path) -> None:
    deadline = time.monotonic() + _LOCK_LIMIT_S
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                raise SetNotMade(f"another process is making the sets in {folder}; wait until it has ended") from error
            time.sleep(0.05)
        else:
            return


def _is_locked(folder: Path) -> bool:
    try:
        with (folder / _LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _write(folder: Path, note: Making) -> None:
    with Disk().replacement(folder / _NOTE, durable=False) as scratch:
        scratch.write_text(write_record(note), "utf-8")
