"""Do answers fit their own region, or are they only frequent ones? Pure.

Corrections that belong to other regions teach how frequent each answer is, and that alone makes more answers right.
So each answer is held against what is right at regions of other images, too.

Neighbour: `learning/gate/gate.py` asks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from learning.gate.evaluate import Outcome
from learning.gate.statistics import Estimate, mean_with_bounds
from learning.gate.text_similarity import joined, said_alike, token_f1

_MOST_TEXTS = 100  # descriptions of other images that one is compared with


@dataclass(frozen=True, slots=True)
class Fit:
    """How much better answers fit their own region than another one: the mean gain, and what a faultless model gains.

    `gain` is None where no answer has a counterpart in another image.
    """

    gain: Estimate | None
    most: float


def fit_of(outcomes: Sequence[Outcome], *, by_words: str) -> Fit:
    """Compare each answer with what is right for the same field at regions of other images with the same label.

    Args:
        outcomes: of one exam.
        by_words: the role of fields that are right by their common words; others are right or wrong.
    """
    alike: dict[tuple[str, str | None], list[Outcome]] = {}
    for each in outcomes:
        alike.setdefault((each.field, each.label), []).append(each)
    gains, mosts, images = [], [], []
    for group in alike.values():
        pairs = _by_words(group) if group[0].role == by_words else _exact(group)
        for outcome, right, dealt, dealt_truth in pairs:
            gains.append(right - dealt)
            mosts.append(1 - dealt_truth)
            images.append(outcome.image)
    return Fit(mean_with_bounds(gains, images), sum(mosts) / len(mosts)) if gains else Fit(None, 0.0)


def _exact(group: Sequence[Outcome]) -> Iterable[tuple[Outcome, float, float, float]]:
    """Outcome, whether it is right, how often it would be elsewhere, how often the truth would be elsewhere."""
    everywhere = Counter(said_alike(each.expected) for each in group)
    in_image: dict[str, Counter[tuple[str, ...]]] = {}
    for each in group:
        in_image.setdefault(each.image, Counter())[said_alike(each.expected)] += 1
    for each in group:
        here = in_image[each.image]
        if others := len(group) - here.total():
            given, expected = said_alike(each.given), said_alike(each.expected)
            dealt, dealt_truth = ((everywhere[words] - here[words]) / others for words in (given, expected))
            yield each, float(each.is_right), dealt, dealt_truth


def _by_words(group: Sequence[Outcome]) -> Iterable[tuple[Outcome, float, float, float]]:
    texts = [joined(each.expected) for each in group]
    for each in group:
        others = [text for other, text in zip(group, texts, strict=True) if other.image != each.image]
        if others:
            others = others[:: -(-len(others) // _MOST_TEXTS)]  # evenly spread ones
            dealt, dealt_truth = (
                sum(token_f1(text, joined(words)) for text in others) / len(others)
                for words in (each.given, each.expected)
            )
            yield each, each.similarity, dealt, dealt_truth
