"""Hardware and versions that a number was measured with, for the JSON line of every result."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

_PACKAGES = ("torch", "transformers", "segment-anything", "rq", "redis", "numpy", "pillow")


def hardware() -> dict[str, str | int]:
    """Return the processor, the number of cores this process may use, and the GPUs that the driver lists."""
    cpu = _named_in(Path("/proc/cpuinfo"), "model name") or platform.processor() or "unknown"
    gpus = [_named_in(file, "Model") for file in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))]
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "machine": platform.machine(),
        "gpu": ", ".join(name for name in gpus if name) or "none",
    }


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that affect speed and quality."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "absent"
    return found


def _named_in(file: Path, name: str) -> str | None:
    """Return the first value of `name: value` in a file of the kernel, or None."""
    if not file.exists():
        return None
    lines = (line.split(":", 1) for line in file.read_text().splitlines() if ":" in line)
    return next((value.strip() for key, value in lines if key.strip() == name), None)
