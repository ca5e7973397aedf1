"""`1,2,5-9` -> task ids."""

from __future__ import annotations

_MOST = 1_000_000


def parse_task_ids(text: str) -> frozenset[int]:
    """The ids that a list of numbers and ranges names.

    Raises:
        ValueError: something else than positive numbers and rising ranges.
    """
    ids: set[int] = set()
    for piece in (piece.strip() for piece in text.split(",")):
        first, dash, last = piece.partition("-")
        if not first.strip().isdecimal() or (dash and not last.strip().isdecimal()):
            raise ValueError(f"expected task numbers such as 1,2,5-9, got {piece!r}")
        low, high = int(first), int(last) if dash else int(first)
        if not low <= high or high - low >= _MOST:
            raise ValueError(f"expected a range that rises and is of at most {_MOST} tasks, got {piece!r}")
        ids.update(range(low, high + 1))
    return frozenset(ids)
