"""How far two texts are apart by their words. No language model: "sofa" and "couch" have nothing in common here.

Neighbours: `learning/gate/evaluate.py` and `learning/report/figures.py` compare expected with given words.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

Similarity = Callable[[str, str], float]  # of two texts, 0 to 1; a sentence embedder may stand in for `token_f1`


def plain(text: str) -> str:
    """Lower case, single spaces, no final dot."""
    return re.sub(r"\s+", " ", text).strip().lower().removesuffix(".").rstrip()


def joined(values: Sequence[str]) -> str:
    """The values of a field as one plain text."""
    return ", ".join(plain(value) for value in values if value.strip())


def said_alike(values: Sequence[str]) -> tuple[str, ...]:
    """Equal for fields that say the same; the order of several values does not count."""
    return tuple(sorted(joined(values).split(", ")))


def same(expected: Sequence[str], given: Sequence[str]) -> bool:
    """Whether two fields say the same."""
    return said_alike(expected) == said_alike(given)


def token_f1(expected: str, given: str) -> float:
    """Harmonic mean of the shares of common words; 1 for two empty texts."""
    left, right = Counter(re.findall(r"\w+", expected.lower())), Counter(re.findall(r"\w+", given.lower()))
    total = left.total() + right.total()
    return 1.0 if total == 0 else 2 * (left & right).total() / total


def edit_share(before: str, after: str, limit: int = 2000) -> float:
    """Levenshtein distance by the longer text's length, 0 to 1; of long texts the first `limit` characters."""
    before, after = before[:limit], after[:limit]
    if before == after:
        return 0.0
    codes = np.frombuffer(after.encode("utf-32-le"), np.uint32)
    steps = np.arange(len(codes) + 1)
    row = steps.copy()
    for idx, code in enumerate(np.frombuffer(before.encode("utf-32-le"), np.uint32)):
        replaced = row[:-1] + (codes != code)
        best = np.concatenate(([idx + 1], np.minimum(row[1:] + 1, replaced)))
        # Insertions run along the row: the cheapest start to the left plus one for every step from there.
        row = np.minimum.accumulate(best - steps) + steps
    return float(row[-1]) / max(len(before), len(after))
