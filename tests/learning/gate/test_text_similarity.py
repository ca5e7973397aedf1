"""Words compared: what counts as the same, as similar, and how much was edited."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learning.gate.text_similarity import edit_share, same, token_f1


def test_same_ignores_case_final_dot_and_order_of_values():
    assert same(["Roof."], ["roof"])
    assert same(["blue", "metal"], ["metal, Blue"])
    assert not same(["roof"], ["rooftop"])
    assert not same(["roof"], [])


def test_similarity_counts_common_words_and_knows_no_synonyms():
    assert token_f1("a red car", "the red car") == pytest.approx(2 / 3)
    assert token_f1("sofa", "couch") == 0.0
    assert token_f1("", "") == 1.0


@pytest.mark.parametrize(
    ("before", "after", "share"),
    [("roof", "rooftop", 3 / 7), ("", "abc", 1.0), ("abc", "", 1.0), ("kitten", "sitting", 3 / 7), ("a", "a", 0.0)],
)
def test_edit_share(before, after, share):
    assert edit_share(before, after) == pytest.approx(share)


def plain_distance(a: str, b: str) -> int:
    """The textbook's table."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        row, above = [i], row
        for j, y in enumerate(b, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (x != y)))
    return row[-1]


@given(st.text("abc", max_size=12), st.text("abc", max_size=12))
def test_edit_share_equals_the_textbook(a, b):
    longest = max(len(a), len(b))
    assert edit_share(a, b) == pytest.approx(plain_distance(a, b) / longest if longest else 0.0)
