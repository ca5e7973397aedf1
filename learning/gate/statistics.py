"""Bootstrap intervals of means, and calibration of confidences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 4000
SEED = 20231215


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its 90 % bootstrap interval, of `n` values in `clusters` images (or other groups)."""

    value: float
    low: float
    high: float
    n: int
    clusters: int


def mean_with_bounds(values: Sequence[float], clusters: Sequence[str]) -> Estimate:
    """Return the mean of `values` with bootstrap bounds: the 5th and 95th percentile, with a fixed seed.

    Whole clusters are resampled, because the regions of one image tend to be right or wrong together. To compare two
    models, pass the paired differences.

    Args:
        values: one number per answer.
        clusters: the image (or other group) of each value.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("expected at least one value to estimate a mean from, got none")
    # Sum and count per cluster, so that a resample of clusters is a weighted sum.
    names, idx = np.unique(np.asarray(clusters), return_inverse=True)
    sums = np.bincount(idx, weights=np.asarray(values, np.float64), minlength=len(names))
    counts = np.bincount(idx, minlength=len(names))
    # How often each cluster is in each resample: (RESAMPLES, clusters).
    generator = np.random.default_rng(SEED)
    drawn = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), size=RESAMPLES)
    means = (drawn @ sums) / np.maximum(drawn @ counts, 1)
    low, high = np.percentile(means, [5, 95])
    return Estimate(float(np.mean(values)), float(low), float(high), len(values), len(names))


@dataclass(frozen=True, slots=True)
class Bin:
    """Answers with a confidence from `low` to `high`: their number, mean confidence and share of correct ones."""

    low: float
    high: float
    n: int
    confidence: float
    right: float


def confidence_bins(confidences: Sequence[float], right: Sequence[bool], num_bins: int = 10) -> tuple[Bin, ...]:
    """Group answers into bins of equal width over confidences 0 to 1; empty bins are left out."""
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
    """Return the expected calibration error over ten bins.

    It is the distance between confidence and accuracy, averaged over the bins and weighted by their answers.
    """
    bins = confidence_bins(confidences, right)
    total = sum(each.n for each in bins)
    return sum(each.n * abs(each.confidence - each.right) for each in bins) / total if total else 0.0
