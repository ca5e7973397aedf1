"""Claims about writing an export: a version is complete or absent after any kill, and one process writes a series."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from learning.export.staging import ExportRefused, staging_folder
from registry.atomic_writes import Disk

ROOT = Path(__file__).resolve().parents[3]


def test_kill_at_every_write_leaves_whole_versions_and_the_next_export_is_clean(tmp_path):
    """After SIGKILL before any of some 70 writes, torn files included, `latest` names a complete version."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    script = ROOT / "tests" / "support" / "killed_export.py"
    child = subprocess.run(
        [sys.executable, str(script), str(tmp_path)],
        cwd=ROOT, env=environ, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert child.returncode == 0, child.stderr
    report = json.loads(child.stdout.splitlines()[-1])
    assert report["wrong"] == {}
    assert report["writes"] > 60


def test_folder_appears_complete(tmp_path):
    """The target does not exist before it is published, and a folder that is not published is removed."""
    with staging_folder(tmp_path, "3") as folder:
        Disk().write_new(folder / "deep" / "file", b"x")
        assert not (tmp_path / "target").exists()
        Disk().publish(folder, tmp_path / "target")
    assert (tmp_path / "target" / "deep" / "file").read_bytes() == b"x"
    with staging_folder(tmp_path, "3") as folder:
        Disk().write_new(folder / "file", b"x")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".3.lock", "target"]


def test_two_writers_of_one_series(tmp_path):
    """The second writer gets an error with the reason; another series can be written."""
    with staging_folder(tmp_path, "3"):
        with pytest.raises(ExportRefused, match=r"another export of 3 .* is running"), staging_folder(tmp_path, "3"):
            pass
        with staging_folder(tmp_path, "4"):
            pass


def test_leftovers_of_a_killed_export_are_removed(tmp_path):
    """The next export of the series removes its folder and its temporary pointer, not those of another series."""
    (tmp_path / ".3.incoming").mkdir()
    (tmp_path / ".3.incoming" / "half").write_bytes(b"x")
    for series in ("3", "4"):
        (tmp_path / f".{series}.latest.1-1.new").write_bytes(b"x")
    with staging_folder(tmp_path, "3") as folder:
        assert list(folder.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == [".3.lock", ".4.latest.1-1.new"]
