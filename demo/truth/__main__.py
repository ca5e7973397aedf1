"""`python -m demo.truth FOLDER`: make the base set and the replay data that are not there.

With `--give-way` it runs at the lowest priority: only a fine-tune and its gate wait for the sets.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType

from demo.truth.sample_sets import write_sample_sets


def main(arguments: list[str]) -> None:
    """Make the sets of the folder that `arguments` name."""
    folders = [each for each in arguments if each != "--give-way"]
    if len(folders) != 1:
        sys.exit("usage: python -m demo.truth FOLDER [--give-way]")
    if folders != arguments:
        os.nice(19)
    signal.signal(signal.SIGTERM, _end)
    write_sample_sets(Path(folders[0]))
    print(f"base set and replay data are in {folders[0]}")  # noqa: T201 - the end of a log


def _end(signum: int, _frame: FrameType | None) -> None:
    sys.exit(128 + signum)


if __name__ == "__main__":
    main(sys.argv[1:])
