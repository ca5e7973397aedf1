"""Become one component: `python -m stack.run STATE_DIR NAME`, which the supervisor starts.

Command and environment are read from the state folder at every start. A component that is restarted after a crash
therefore gets the present settings, and the supervisor's file contains no secrets.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from stack.components import Stack, process_named
from stack.state import MARK, StateFolder, write_private


def main() -> None:
    """Replace this process with the process of the component."""
    state, name = StateFolder(Path(sys.argv[1])), sys.argv[2]
    launch = state.load_launch()
    if launch is None:
        sys.exit(f"{state.path} holds no launch.json; start the stack with `make up`")
    process = process_named(name, Stack(state, launch, state.load_secrets()))
    write_private(state.run / f"{name}.fingerprint", process.fingerprint())
    os.chdir(state.path)  # not the checkout, which may be moved or switched to another branch while the stack runs
    inherited = {key: value for key, value in os.environ.items() if process.inherited(key) or key == MARK}
    os.execve(process.command[0], process.command, {**inherited, **process.environment})


if __name__ == "__main__":
    main()
