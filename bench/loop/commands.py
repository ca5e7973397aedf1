"""`osprey` commands as child processes against the simulation's stack, each with a log of its own."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from stack.components import Stack, osprey_process
from stack.settings import CHECKOUT
from stack.state import MARK

_STOP_LIMIT_S = 20.0
_TAIL_LINES = 15
# The small model's matrices gain little from a second core, and on a busy machine threads that wait for each other
# made a training step seven times as long.
_ONE_THREAD = {"OMP_NUM_THREADS": "1"}


class CommandFailedError(Exception):
    """A command ended with another exit code than was expected; the message holds the end of its log."""


def run_osprey(
    stack: Stack,
    *arguments: str,
    log: Path,
    told: Mapping[str, str],
    environ: Mapping[str, str],
    on_wait: Callable[[], None],
) -> None:
    """Run `osprey ARGUMENTS` to its end; stopped when this process is.

    Args:
        stack: whose settings the command gets.
        arguments: of the command.
        log: gets what it prints, behind what is there.
        told: further `OSPREY_*` variables.
        environ: this process's environment.
        on_wait: called about once a second.

    Raises:
        CommandFailedError: it ended with something else than 0.
    """
    process = osprey_process(stack, *arguments)
    inherited = _ONE_THREAD | {key: value for key, value in environ.items() if process.inherited(key)}
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        child = subprocess.Popen(
            process.command,
            # The mark: a command that outlives this process is ended by the next simulation.
            env={**inherited, **process.environment, **told, MARK: str(stack.state.path)},
            cwd=CHECKOUT,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        while child.poll() is None:
            time.sleep(1.0)
            on_wait()
    finally:
        if child.poll() is None:
            child.terminate()
            try:
                child.wait(_STOP_LIMIT_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
    if child.returncode:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-_TAIL_LINES:])
        raise CommandFailedError(
            f"osprey {' '.join(arguments)} ended with {child.returncode}; the end of {log}:\n{tail}"
        )
