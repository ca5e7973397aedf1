"""Claims about comparing field values: what counts as equal and what as similar."""

from __future__ import annotations

import pytest

from learning.gate.text_similarity import same, token_f1


def test_same_ignores_case_final_dot_and_order_of_values():
    """Values that differ only in formatting or order are equal; others are not."""
    assert same(["Roof."], ["roof"])
    assert same(["blue", "metal"], ["metal, Blue"])
    assert not same(["roof"], ["rooftop"])
    assert not same(["roof"], [])


def test_similarity_counts_common_words_and_knows_no_synonyms():
    """The similarity is the F1 score of common words; synonyms have none, two empty texts are equal."""
    assert token_f1("a red car", "the red car") == pytest.approx(2 / 3)
    assert token_f1("sofa", "couch") == 0.0
    assert token_f1("", "") == 1.0
