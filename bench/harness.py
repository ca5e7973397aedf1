"""Functions that all benchmarks use: repeated timing, percentiles, and the JSON line at the end.

A result contains the hardware and the versions that it was measured with. Kept results are in `bench/results/`, as
`<subject>_<hardware>_<yyyymm>.json`.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.service.machine import hardware, versions

RESULTS = Path(__file__).parent / "results"  # kept results


def repeat(
    action: Callable[[], object],
    warmup: int,
    repeats: int,
    sync: Callable[[], object] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> list[float]:
    """Return the seconds of each of `repeats` calls after `warmup` calls that are not measured.

    Args:
        action: the measured call.
        warmup: number of calls before the measured ones.
        repeats: number of measured calls.
        sync: waits for work that `action` only started (`torch.cuda.synchronize` on a GPU).
        clock: `time.process_time` if other work shares the machine and `action` does not wait for anything.
    """
    times_s = []
    for idx in range(warmup + repeats):
        started = clock()
        action()
        if sync is not None:
            sync()
        if idx >= warmup:
            times_s.append(clock() - started)
    return times_s


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that at least `percent` % of the values do not exceed (nearest rank).

    Raises:
        ValueError: no values.
    """
    if not values:
        raise ValueError(f"no values to take the {percent}th percentile of; did every repetition fail?")
    return sorted(values)[max(0, math.ceil(percent / 100 * len(values)) - 1)]


def summary(times_s: Sequence[float]) -> dict[str, float | int]:
    """Return p50, p95 and maximum of some times, rounded to milliseconds, with their number."""
    return {
        "p50_s": round(percentile(times_s, 50), 3),
        "p95_s": round(percentile(times_s, 95), 3),
        "max_s": round(max(times_s), 3),
        "count": len(times_s),
    }


def report(subject: str, figures: Mapping[str, Any], out: Path | None = None) -> None:
    """Print the result as one line of JSON, the last of the output, and write it to `out`."""
    result = {"subject": subject, **figures, "hardware": hardware(), "versions": versions()}
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))
