"""Base set and replay data of the small model, made once for `make up` and docker compose.

FOLDER/base and FOLDER/replay are links to export versions beside them, which appear when they are whole. What is there
stays as it is: a base set is frozen. How far it is stands in a note that `registry/sets_in_making.py` reads.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from demo.scenes import BASE_SEEDS, REPLAY_SEEDS
from demo.truth.sets import write_truth_set
from label_config.ready_configs import BITMASK
from learning.export.manifest import MANIFEST
from registry.atomic_writes import Disk
from registry.sets_in_making import maker

# From the middle of what a simulation with seed 0 has, and never gets to.
_SETS: dict[str, tuple[int, Sequence[int]]] = {
    "base": (900_012, BASE_SEEDS[50_000:50_024]),
    "replay": (900_011, REPLAY_SEEDS[50_000:50_100]),
}


def sample_sets_are_made(folder: Path) -> bool:
    """Whether all sets of `folder` are there and whole."""
    return all(_is_whole(folder / name) for name in _SETS)


def write_sample_sets(folder: Path, sets: dict[str, tuple[int, Sequence[int]]] | None = None) -> None:
    """Make the sets that are not there; a call that was killed is made good by the next one.

    Raises:
        ExportRefused: `folder` cannot hold them.
        SetNotMade: another process makes them now.
    """
    label_config = BITMASK.read_text(encoding="utf-8")
    missing = {name: each for name, each in (sets or _SETS).items() if not _is_whole(folder / name)}
    with maker(folder, sum(2 * len(seeds) for _, seeds in missing.values())) as step:
        for name, (number, seeds) in missing.items():
            with tempfile.TemporaryDirectory() as cache:
                version = write_truth_set(folder, Path(cache), seeds, label_config, number, step)
            with Disk().replacement(folder / name) as scratch:
                scratch.symlink_to(version.path.name)  # relative: the folder may be moved


def _is_whole(link: Path) -> bool:
    # The link is made last, to a folder that was renamed whole. Without a manifest the folder was emptied since.
    return (link / MANIFEST).is_file()
