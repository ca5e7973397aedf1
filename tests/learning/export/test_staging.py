"""Claims about writing: complete or not at all, one writer at a time, whatever kills it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from learning.export.staging import ExportRefused, point, publish, staging_folder, write_file

ROOT = Path(__file__).resolve().parents[3]


def test_kill_at_every_write_leaves_whole_versions_and_the_next_export_is_clean(tmp_path):
    """SIGKILL before each of some 70 writes, torn files included: `latest` always names a whole version."""
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
    """Nothing is at the target until it is published; what is not published disappears."""
    with staging_folder(tmp_path, "3") as folder:
        write_file(folder / "deep" / "file", b"x")
        assert not (tmp_path / "target").exists()
        publish(folder, tmp_path / "target")
    assert (tmp_path / "target" / "deep" / "file").read_bytes() == b"x"
    with staging_folder(tmp_path, "3") as folder:
        write_file(folder / "file", b"x")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".3.lock", "target"]


def test_two_writers_of_one_series(tmp_path):
    """The second one is refused and told why; another series is free."""
    with staging_folder(tmp_path, "3"):
        with pytest.raises(ExportRefused, match=r"another export of 3 .* is running"), staging_folder(tmp_path, "3"):
            pass
        with staging_folder(tmp_path, "4"):
            pass


def test_pointer_is_replaced(tmp_path):
    """The pointer holds the last name, and no second file stays."""
    point(tmp_path / "3.latest", "one")
    point(tmp_path / "3.latest", "two")
    assert (tmp_path / "3.latest").read_text() == "two\n"
    assert [path.name for path in tmp_path.iterdir()] == ["3.latest"]
