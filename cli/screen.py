"""What commands share on the screen: failures with an exit code, and one progress bar per step.

Exit codes of every command: 0 done; 1 it failed, or a part of it did; 2 the command line or a setting is wrong;
3 a gate was not passed; 130 stopped with Ctrl-C.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from job_queue.settings import OspreySettings

S = TypeVar("S", bound="OspreySettings")

FAILED, WRONG_USE, NOT_PASSED, STOPPED = 1, 2, 3, 130


def error_console() -> Console:
    """Return a console on standard error; results alone go to standard output."""
    from rich.console import Console

    return Console(stderr=True)


def complain(what: str, reason: str) -> None:
    """Print one failure: `what` in red, then the reason."""
    from rich.markup import escape

    error_console().print(f"[red]{escape(what)}:[/red] {escape(reason)}", soft_wrap=True)


def fail(what: str, reason: str, code: int = FAILED) -> NoReturn:
    """Print a failure and end the command with an exit code.

    Raises:
        typer.Exit: always.
    """
    complain(what, reason)
    raise typer.Exit(code)


def read_settings(kind: type[S]) -> S:
    """Read settings from the environment; a value that cannot be used ends the command with exit code 2.

    Raises:
        typer.Exit: there is such a value.
    """
    try:
        return kind.from_env(os.environ)
    except ValueError as error:
        fail("Wrong setting", str(error), WRONG_USE)


@contextmanager
def failures(what: str, *, advice: str = "") -> Iterator[None]:
    """Turn an expected error inside the block into a message and exit code 1.

    Expected are errors that a person can act on: those of this project, of files, and of values that were given.

    Args:
        what: what did not happen, such as "Not exported".
        advice: a line that is printed after the reason.

    Raises:
        typer.Exit: there was such an error.
    """
    from job_queue.errors import OspreyError

    try:
        yield
    except (OspreyError, OSError, ValueError) as error:
        complain(what, str(error))
        if advice:
            error_console().print(advice)
        raise typer.Exit(FAILED) from error


@contextmanager
def stoppable(what_stays: str) -> Iterator[None]:
    """Turn Ctrl-C inside the block into a message that says what is kept, and exit code 130.

    Raises:
        typer.Exit: the person stopped the command.
    """
    try:
        yield
    except KeyboardInterrupt:
        error_console().print(f"Stopped. {what_stays}")
        raise typer.Exit(STOPPED) from None


class StepBars:
    """One progress bar per step of a command, on standard error."""

    def __init__(self, progress: Progress, lines: Mapping[str, str] | None = None) -> None:
        """Show bars in `progress`; `lines` holds by step a line that is printed when the step begins."""
        self._progress = progress
        self._lines = lines or {}
        self._bars: dict[str, TaskID] = {}

    def show(self, step: str, done: float, total: float | None, **fields: Any) -> None:
        """Show that `done` of `total` parts of a step are done; the bar appears at the first call."""
        if step not in self._bars:
            self._bars[step] = self._progress.add_task(step, total=total, **fields)
            if step in self._lines:
                self._progress.console.print(self._lines[step], soft_wrap=True)
        self._progress.update(self._bars[step], completed=done, total=total, **fields)

    def advance(self, step: str, total: float | None = None) -> None:
        """Show that one more part of a step is done."""
        if step not in self._bars:
            self._bars[step] = self._progress.add_task(step, total=total)
        self._progress.advance(self._bars[step])


@contextmanager
def step_bars(lines: Mapping[str, str] | None = None) -> Iterator[StepBars]:
    """Show progress bars while the block runs; they disappear at its end. `lines`: see `StepBars`."""
    from rich.progress import Progress

    with Progress(console=error_console(), transient=True) as progress:
        yield StepBars(progress, lines)


@contextmanager
def long_bar(unit: str) -> Iterator[StepBars]:
    """Show one bar with a count of `unit` and of regions, and the time that is left; it stays on the screen."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit + ", {task.fields[regions]} regions"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=error_console()) as progress:
        yield StepBars(progress)
