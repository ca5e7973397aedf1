"""Compare field values: equal up to formatting, or similar by common words.

No language model is used: "sofa" and "couch" have no similarity here.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

Similarity = Callable[[str, str], float]  # of two texts, 0 to 1; a sentence embedder could replace `token_f1`


def plain(text: str) -> str:
    """Return the text in lower case, with single spaces and without a final dot."""
    return re.sub(r"\s+", " ", text).strip().lower().removesuffix(".").rstrip()


def joined(values: Sequence[str]) -> str:
    """Return the values of a field as one plain text."""
    return ", ".join(plain(value) for value in values if value.strip())


def same_key(values: Sequence[str]) -> tuple[str, ...]:
    """Return a key that is equal for equal values of a field, whatever their order and formatting."""
    return tuple(sorted(joined(values).split(", ")))


def same(expected: Sequence[str], given: Sequence[str]) -> bool:
    """Return whether two values of a field are equal up to order and formatting."""
    return same_key(expected) == same_key(given)


def token_f1(expected: str, given: str) -> float:
    """Return the F1 score of the common words, 0 to 1; 1 for two empty texts."""
    left, right = Counter(re.findall(r"\w+", expected.lower())), Counter(re.findall(r"\w+", given.lower()))
    total = left.total() + right.total()
    return 1.0 if total == 0 else 2 * (left & right).total() / total
