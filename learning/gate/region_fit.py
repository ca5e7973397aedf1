"""Measure whether answers fit their own region, or are only frequent ones. Pure functions.

A model can be right more often by learning answer frequencies alone, for example from shuffled corrections. So each
answer is also compared with the correct values of regions in other images.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from learning.gate.evaluate import FieldOutcome
from learning.gate.statistics import Estimate, mean_with_bounds
from learning.gate.text_similarity import joined, same_key, token_f1

_MOST_TEXTS = 100  # descriptions of other images that an answer is compared with


@dataclass(frozen=True, slots=True)
class Fit:
    """How much better the answers fit their own regions than regions of other images.

    Attributes:
        gain: mean of (score at its own region - mean score at other regions); None if no answer can be compared.
        most: the gain of a model whose answers are all correct.
    """

    gain: Estimate | None
    most: float


def fit_of(outcomes: Sequence[FieldOutcome], *, by_words: str) -> Fit:
    """Compare each answer with the correct values of the same field at regions of other images with the same label.

    Args:
        outcomes: of one exam.
        by_words: role of the fields that are scored by the words they share with the correct value. Values of other
            fields are correct or wrong.
    """
    alike: dict[tuple[str, str | None], list[FieldOutcome]] = {}
    for each in outcomes:
        alike.setdefault((each.field, each.label), []).append(each)
    gains, mosts, images = [], [], []
    for group in alike.values():
        pairs = _by_words(group) if group[0].role == by_words else _exact(group)
        for outcome, score, chance, chance_of_truth in pairs:
            gains.append(score - chance)
            mosts.append(1 - chance_of_truth)
            images.append(outcome.image)
    return Fit(mean_with_bounds(gains, images), sum(mosts) / len(mosts)) if gains else Fit(None, 0.0)


def _exact(group: Sequence[FieldOutcome]) -> Iterable[tuple[FieldOutcome, float, float, float]]:
    """Score by exact match.

    Yields:
        The outcome, its score (1 or 0), the chance that its answer is correct at a region of another image, and the
        same chance for the correct value.
    """
    everywhere = Counter(same_key(each.expected) for each in group)
    in_image: dict[str, Counter[tuple[str, ...]]] = {}
    for each in group:
        in_image.setdefault(each.image, Counter())[same_key(each.expected)] += 1
    for each in group:
        here = in_image[each.image]
        if others := len(group) - here.total():
            chance, chance_of_truth = (
                (everywhere[key] - here[key]) / others for key in (same_key(each.given), same_key(each.expected))
            )
            yield each, float(each.is_right), chance, chance_of_truth


def _by_words(group: Sequence[FieldOutcome]) -> Iterable[tuple[FieldOutcome, float, float, float]]:
    """Score by similarity of words, 0 to 1; yields the same as `_exact`."""
    texts = [joined(each.expected) for each in group]
    for each in group:
        others = [text for other, text in zip(group, texts, strict=True) if other.image != each.image]
        if others:
            others = others[:: -(-len(others) // _MOST_TEXTS)]  # at most that many, evenly spread
            chance, chance_of_truth = (
                sum(token_f1(text, joined(values)) for text in others) / len(others)
                for values in (each.given, each.expected)
            )
            yield each, each.similarity, chance, chance_of_truth
