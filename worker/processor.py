"""The device, threads and priority of a worker process."""

from __future__ import annotations

import gc
import os
import sys


def free_memory() -> None:
    """Return the memory of dropped models to the device."""
    gc.collect()
    if "torch" in sys.modules:
        import torch

        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def pick_device() -> str:
    """Return `cuda` if there is a usable GPU, else `cpu`."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def default_threads() -> int:
    """Return half of the cores that this process may use, because two workers usually share a machine.

    More threads than free cores slow a click down a lot: every parallel step of PyTorch waits for the thread that
    does not run.
    """
    # Only Linux reports which cores a process may use.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // 2)


def limit_threads(num_threads: int) -> None:
    """Limit torch to `num_threads` threads instead of one per core."""
    import torch

    torch.set_num_threads(num_threads)


def give_way() -> None:
    """Lower this process's priority, so that clicks are answered first (does nothing on systems without `nice`)."""
    if hasattr(os, "nice"):
        os.nice(19)
