"""Become one component: `python -m stack.run STATE_DIR NAME`, called by the supervisor.

The command and the environment are read from the state folder at every start, so a component that is
restarted after a crash gets the present settings, and no secret stands in the supervisor's file.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from stack.components import Stack, process_named
from stack.state import MARK, StateFolder, write_private


def main() -> None:
    """Replace this process by the component's."""
    state, name = StateFolder(Path(sys.argv[1])), sys.argv[2]
    launch = state.load_launch()
    if launch is None:
        sys.exit(f"{state.path} holds no launch.json; start the stack with `make up`")
    process = process_named(name, Stack(state, launch, state.load_secrets()))
    write_private(state.run / f"{name}.fingerprint", process.fingerprint())
    os.chdir(state.path)  # a folder that stays: a checkout may be moved or switched while the stack runs
    inherited = {key: value for key, value in os.environ.items() if process.inherited(key) or key == MARK}
    os.execve(process.command[0], process.command, {**inherited, **process.environment})


if __name__ == "__main__":
    main()
