"""The device, threads and priority of a worker process."""

from __future__ import annotations

import gc
import os
import sys


def free_memory() -> None:
    """Give what a dropped model held back to the device."""
    gc.collect()
    if "torch" in sys.modules:
        import torch

        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def pick_device() -> str:
    """`cuda` where there is a usable GPU, else `cpu`."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def default_threads() -> int:
    """Half of the cores this process may use: a worker for masks and one for texts usually share a machine.

    More threads than free cores do not slow a click down a little: every parallel step of PyTorch waits for
    the thread that does not run.
    """
    # Only Linux knows which cores a process was given.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // 2)


def limit_threads(num_threads: int) -> None:
    """Let torch use `num_threads` cores instead of all of them."""
    import torch

    torch.set_num_threads(num_threads)


def give_way() -> None:
    """The lowest priority for this process: whoever waits for an answer goes first. Where the system has priorities."""
    if hasattr(os, "nice"):
        os.nice(19)
