"""How long each step of one answer took, for the log and the `Server-Timing` response header."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


class Timings:
    """Milliseconds by step, in the order in which the steps ended. One per request, used by one thread."""

    def __init__(self) -> None:
        self.started_s = time.monotonic()
        self.ms: dict[str, float] = {}

    @property
    def elapsed_s(self) -> float:
        """Seconds since the request came in."""
        return time.monotonic() - self.started_s

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time the block. The times of a name that is used twice are added."""
        started_s = time.monotonic()
        try:
            yield
        finally:
            self.add(name, (time.monotonic() - started_s) * 1000)

    def add(self, name: str, ms: float) -> None:
        """Add milliseconds to a step."""
        self.ms[name] = self.ms.get(name, 0.0) + ms

    def add_worker(self, prefix: str, timings_ms: Mapping[str, float]) -> None:
        """Add a worker's own timings as `<prefix>.<step>`."""
        for name, ms in timings_ms.items():
            self.add(f"{prefix}.{name}", ms)

    def header(self) -> str:
        """Return the value of a `Server-Timing` header, with the total last."""
        steps = {**self.ms, "total": self.elapsed_s * 1000}
        return ", ".join(f"{name};dur={ms:.1f}" for name, ms in steps.items())
