"""Claims about lists of task numbers."""

from __future__ import annotations

import pytest

from worker.prelabel.task_ids import parse_task_ids


def test_numbers_and_ranges():
    assert parse_task_ids("1, 2,5-7,6-8") == {1, 2, 5, 6, 7, 8}


@pytest.mark.parametrize("text", ["", "a", "1,,2", "9-5", "-3", "1-", "1-99999999"])
def test_anything_else_is_refused(text):
    with pytest.raises(ValueError, match="expected"):
        parse_task_ids(text)
