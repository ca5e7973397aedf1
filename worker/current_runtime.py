"""The runtime of this process. RQ calls jobs by path, without arguments of ours, so jobs look it up here."""

from __future__ import annotations

from typing import TypeVar

R = TypeVar("R")

_installed: object | None = None


def install(runtime: object) -> None:
    """Make `runtime` the one that this process's jobs use."""
    global _installed
    _installed = runtime


def current(kind: type[R]) -> R:
    """Return the installed runtime, which must be a `kind`.

    Raises:
        TypeError: a job of another queue reached this process.
    """
    if not isinstance(_installed, kind):
        found = "no runtime" if _installed is None else f"a {type(_installed).__name__}"
        raise TypeError(
            f"this job needs a worker with a {kind.__name__}, and this process has {found}; "
            "jobs run inside a QueueWorker that listens on their queue"
        )
    return _installed
