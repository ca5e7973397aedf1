"""Claims about mixing new and old entries."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from learning.training.replay import ReplayUnusable, write_mixture
from osprey_model.data.mixture import read_data_config


def config(folder: Path, **files: int) -> Path:
    """Write a data config with files of numbered entries."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for name, count in files.items():
        (folder / f"{name}.json").write_text(json.dumps([{"id": f"{name}{idx}"} for idx in range(count)]))
        rows.append({"type": "OspreyQuestions", "ann_file": f"{name}.json", "img_prefix": "images"})
    (folder / "data.json").write_text(json.dumps(rows))
    return folder / "data.json"


def ids(path: Path) -> list[str]:
    """Return the ids of the entries in all files of a data config."""
    return [entry["id"] for file in read_data_config(path) for entry in json.loads(file.ann_file.read_text())]


def test_as_many_old_as_the_ratio_says(tmp_path: Path) -> None:
    """The mixture has every new entry once and `ratio` old ones per new one, from every file."""
    new, old = config(tmp_path / "new", a=10), config(tmp_path / "old", b=200, c=100)
    mixture = write_mixture(new, old, 3.0, tmp_path / "run", seed=0)
    found = ids(mixture.path)
    assert (mixture.new, mixture.replayed, mixture.available) == (10, 30, 300)
    assert [each for each in found if each[0] == "a"] == [f"a{idx}" for idx in range(10)]
    assert len(set(found)) == 40
    assert 10 < sum(each[0] == "b" for each in found) < 30
    assert {file.img_prefix for file in read_data_config(mixture.path)} == {
        tmp_path / "new" / "images",
        tmp_path / "old" / "images",
    }


def test_same_seed_same_sample(tmp_path: Path) -> None:
    """The same seed gives the same sample, another seed another one."""
    new, old = config(tmp_path / "new", a=10), config(tmp_path / "old", b=200)
    first, again, other = (
        ids(write_mixture(new, old, 1.0, tmp_path / str(idx), seed=seed).path) for idx, seed in enumerate((0, 0, 1))
    )
    assert first == again
    assert first != other


def test_too_few_old_ones_are_all_taken(tmp_path: Path) -> None:
    """If there are too few old entries all are used, and without replay data none."""
    new, old = config(tmp_path / "new", a=10), config(tmp_path / "old", b=4)
    assert write_mixture(new, old, 1.0, tmp_path / "run", seed=0).replayed == 4
    assert write_mixture(new, None, 1.0, tmp_path / "run2", seed=0).replayed == 0


def test_unusable_replay_is_named(tmp_path: Path) -> None:
    """The error for a missing, an empty and a COCO file names the file and the next step."""
    new = config(tmp_path / "new", a=1)
    with pytest.raises(ReplayUnusable, match="no entry"):
        write_mixture(new, config(tmp_path / "empty", b=0), 1.0, tmp_path / "run", seed=0)
    missing = config(tmp_path / "missing", b=3)
    (tmp_path / "missing" / "b.json").unlink()
    with pytest.raises(ReplayUnusable, match=r"b\.json"):
        write_mixture(new, missing, 1.0, tmp_path / "run", seed=0)
    coco = config(tmp_path / "coco", b=3)
    (tmp_path / "coco" / "b.json").write_text(json.dumps({"images": [], "annotations": [], "categories": []}))
    with pytest.raises(ReplayUnusable, match="JSON list"):
        write_mixture(new, coco, 1.0, tmp_path / "run", seed=0)
