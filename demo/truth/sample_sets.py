"""Base set and replay data of the small model, made once for `make up` and docker compose.

FOLDER/base and FOLDER/replay are links to export versions beside them. What is there stays as it is: a base set is
frozen.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from demo.scenes import BASE_SEEDS, REPLAY_SEEDS
from demo.truth.sets import write_truth_set
from label_config.ready_configs import BITMASK

# From the middle of what a simulation with seed 0 has, and never gets to.
_SETS: dict[str, tuple[int, Sequence[int]]] = {
    "base": (900_012, BASE_SEEDS[50_000:50_024]),
    "replay": (900_011, REPLAY_SEEDS[50_000:50_100]),
}


def write_sample_sets(folder: Path, sets: dict[str, tuple[int, Sequence[int]]] | None = None) -> None:
    """Make the sets that are not there; a call that was killed is made good by the next one.

    Raises:
        ExportRefused: `folder` cannot hold them.
    """
    label_config = BITMASK.read_text(encoding="utf-8")
    for name, (number, seeds) in (sets or _SETS).items():
        link = folder / name
        if link.exists():
            continue
        with tempfile.TemporaryDirectory() as cache:
            version = write_truth_set(folder, Path(cache), seeds, label_config, number)
        scratch = folder / f".{name}.new"
        scratch.unlink(missing_ok=True)
        scratch.symlink_to(version.path.name)  # relative: the folder may be moved
        scratch.replace(link)
