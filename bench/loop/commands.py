"""Run `osprey` commands as child processes against the simulation's stack, each with its own log."""

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
# A second core speeds the small model's matrices up little, and on a busy machine threads that wait for each other
# make a training step seven times slower.
_ONE_THREAD = {"OMP_NUM_THREADS": "1"}


class CommandFailedError(Exception):
    """A command ended with an unexpected exit code; the message contains the end of its log."""


def run_osprey(
    stack: Stack,
    *arguments: str,
    log: Path,
    variables: Mapping[str, str],
    environ: Mapping[str, str],
    on_wait: Callable[[], None],
) -> None:
    """Run `osprey ARGUMENTS` to its end. The command stops when this process does.

    Args:
        stack: the stack whose settings the command uses.
        arguments: the command's arguments.
        log: the file that its output is appended to.
        variables: further `OSPREY_*` variables.
        environ: this process's environment.
        on_wait: called about once a second.

    Raises:
        CommandFailedError: its exit code is not 0.
    """
    process = osprey_process(stack, *arguments)
    inherited = _ONE_THREAD | {key: value for key, value in environ.items() if process.inherited(key)}
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        child = subprocess.Popen(
            process.command,
            # With the mark, the next simulation finds and ends a command that outlives this process.
            env={**inherited, **process.environment, **variables, MARK: str(stack.state.path)},
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
