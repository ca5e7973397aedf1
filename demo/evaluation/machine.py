"""What a measured number was taken on: hardware and versions, for the JSON line of every result."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

_PACKAGES = ("torch", "transformers", "segment-anything", "rq", "redis", "numpy", "pillow")


def hardware() -> dict[str, str | int]:
    """Processor, the cores this process may use, and the GPU where torch sees one."""
    cpuinfo = Path("/proc/cpuinfo")
    model = (
        next(
            (
                line.split(":", 1)[1].strip()
                for line in cpuinfo.read_text().splitlines()
                if line.startswith("model name")
            ),
            platform.processor(),
        )
        if cpuinfo.exists()
        else platform.processor()
    )
    return {"cpu": model, "cores": len(os.sched_getaffinity(0)), "machine": platform.machine(), "gpu": _gpu()}


def versions() -> dict[str, str]:
    """Python's and those of the packages that decide speed and quality."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "absent"
    return found


def _gpu() -> str:
    try:
        import torch
    except ModuleNotFoundError:
        return "none"
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
