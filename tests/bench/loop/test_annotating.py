"""Claims about a round's journal: it survives a kill at any byte, and every submitted region is counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.loop.annotating import Journal, NotCollectedError, wait_until_collected
from bench.loop.tally import Seen
from learning.corrections.store import Store

FIRST = Seen(40, 1, "r1", True, ("category",), ("category",), "v1@0")
SECOND = Seen(41, 2, "r2", False, ("category",), (), "v1@0")


def test_a_journal_cut_at_any_byte_keeps_its_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "round-0.jsonl"
    journal = Journal(path)
    journal.add(1, [FIRST])
    one_line = path.stat().st_size
    journal.add(2, [SECOND])
    whole = path.read_bytes()
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        found = Journal(path)
        expected = [FIRST, SECOND] if cut == len(whole) else [FIRST] if cut >= one_line else []
        assert found.seen == expected
        found.add(9, [])  # goes on behind a whole line
        assert Journal(path).tasks == {*(each.task for each in expected), 9}


def test_a_scene_without_a_region_is_noted_as_done(tmp_path: Path) -> None:
    Journal(tmp_path / "round-0.jsonl").add(5, [])
    assert Journal(tmp_path / "round-0.jsonl").tasks == {5}


def test_what_no_webhook_brought_is_missed(tmp_path: Path) -> None:
    with (
        Store.open(f"sqlite:///{tmp_path / 'corrections.db'}") as store,
        pytest.raises(NotCollectedError, match="2 are missing"),
    ):
        wait_until_collected(store, 1, [FIRST, SECOND], limit_s=0.0)
