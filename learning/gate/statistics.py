"""Intervals and calibration of right-or-wrong outcomes.

Neighbours: `learning/gate/gate.py` decides by them, `learning/report/figures.py` shows them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 4000
SEED = 20231215


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with the bounds that 90 % of the resamples lie between; `n` values in `clusters` images."""

    value: float
    low: float
    high: float
    n: int
    clusters: int


def mean_with_bounds(values: Sequence[float], clusters: Sequence[str]) -> Estimate:
    """The mean of `values` with bootstrap bounds (5th and 95th percentile, fixed seed).

    Whole images are drawn, because the regions of one image are right or wrong together. For a comparison hand over
    the paired differences.

    Raises:
        ValueError: no values.
    """
    if not values:
        raise ValueError("expected at least one value to estimate a mean from, got none")
    names, idx = np.unique(np.asarray(clusters), return_inverse=True)
    sums = np.bincount(idx, weights=np.asarray(values, np.float64), minlength=len(names))
    counts = np.bincount(idx, minlength=len(names))
    generator = np.random.default_rng(SEED)
    drawn = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), size=RESAMPLES)
    means = (drawn @ sums) / np.maximum(drawn @ counts, 1)
    low, high = np.percentile(means, [5, 95])
    return Estimate(float(np.mean(values)), float(low), float(high), len(values), len(names))


@dataclass(frozen=True, slots=True)
class Bin:
    """Answers of similar confidence: how sure the model was on average, and how often it was right."""

    low: float
    high: float
    n: int
    confidence: float
    right: float


def confidence_bins(confidences: Sequence[float], right: Sequence[bool], num_bins: int = 10) -> tuple[Bin, ...]:
    """Bins of equal width over 0..1; empty ones are left out."""
    bins = []
    values, hits = np.asarray(confidences, np.float64), np.asarray(right, np.float64)
    place = np.minimum((values * num_bins).astype(int), num_bins - 1)
    for idx in np.unique(place):
        inside = place == idx
        bins.append(
            Bin(
                low=float(idx / num_bins),
                high=float((idx + 1) / num_bins),
                n=int(inside.sum()),
                confidence=float(values[inside].mean()),
                right=float(hits[inside].mean()),
            )
        )
    return tuple(bins)


def calibration_error(confidences: Sequence[float], right: Sequence[bool]) -> float:
    """Expected calibration error over ten bins: the mean distance of confidence and accuracy, weighted by answers."""
    bins = confidence_bins(confidences, right)
    total = sum(each.n for each in bins)
    return sum(each.n * abs(each.confidence - each.right) for each in bins) / total if total else 0.0
