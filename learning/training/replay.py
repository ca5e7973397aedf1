"""Mix old training data into the new, so that a model that learns a team's vocabulary keeps what it knows.

A sample of the entries of `OSPREY_REPLAY` (a data config such as Osprey-724K's) is written as files of the run, beside
those of the export version. The sample depends only on the seed, so a continued run reads the same entries again.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from job_queue.errors import OspreyError

if TYPE_CHECKING:
    from osprey_model.data.entries import RangeEntries
    from osprey_model.data.mixture import DataFile

MIXTURE_FILE = "mixture.json"


class ReplayUnusable(OspreyError):
    """The replay data cannot be read. The message names the file and the next step."""


@dataclass(frozen=True, slots=True)
class Mixture:
    """A data config with `new` entries and `replayed` of the `available` old ones."""

    path: Path
    new: int
    replayed: int
    available: int


def write_mixture(data: Path, replay: Path | None, ratio: float, folder: Path, *, seed: int) -> Mixture:
    """Write the data config of a run.

    Args:
        data: data config of the export version.
        replay: data config of the old data; None: no replay.
        ratio: old entries per new entry; if there are too few, all are used.
        folder: folder of the run; files in it are replaced.
        seed: for the sample.

    Raises:
        ReplayUnusable: a file of `replay` is missing or not a JSON list, or there are no entries.
    """
    from osprey_model.data.entries import open_list
    from osprey_model.data.mixture import read_data_config

    files = read_data_config(data)
    rows = [_row(file, file.ann_file) for file in files]
    num_new = sum(len(open_list(file.ann_file)) for file in files)
    old = [] if replay is None else _opened(replay)
    places = [(at, idx) for at, (_, entries) in enumerate(old) for idx in range(len(entries))]
    wanted = min(round(ratio * num_new), len(places))
    chosen = sorted(random.Random(seed).sample(places, wanted))
    folder.mkdir(parents=True, exist_ok=True)
    for at, (file, entries) in enumerate(old):
        picked = [entries.load(idx) for where, idx in chosen if where == at]
        if picked:
            path = folder / f"replay-{at}-{file.ann_file.name}"
            path.write_text(json.dumps(picked), encoding="utf-8")
            rows.append(_row(file, path))
    path = folder / MIXTURE_FILE
    path.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    return Mixture(path, num_new, wanted, len(places))


def _opened(replay: Path) -> list[tuple[DataFile, RangeEntries]]:
    from osprey_model.data.entries import open_list
    from osprey_model.data.json_index import BadFile
    from osprey_model.data.mixture import read_data_config

    try:
        found = [(file, open_list(file.ann_file)) for file in read_data_config(replay)]
    except (OSError, ValueError, BadFile) as error:
        raise ReplayUnusable(
            f"the replay data {replay} cannot be read: {error}; OSPREY_REPLAY names a data config "
            "whose files are JSON lists"
        ) from error
    if not sum(len(entries) for _, entries in found):
        raise ReplayUnusable(f"the replay data {replay} has no entry; unset OSPREY_REPLAY to train without replay")
    return found


def _row(file: DataFile, ann_file: Path) -> dict[str, Any]:
    row = {"type": file.type, "ann_file": str(ann_file.resolve()), "img_prefix": str(file.img_prefix.resolve())}
    return row if file.weight == 1.0 else {**row, "weight": file.weight}
