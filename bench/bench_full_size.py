"""The full-size Osprey with random weights: seconds to load, seconds to answer, memory.

`python -m bench.bench_full_size` writes a checkpoint in the released layout (14 GB, sharded bfloat16 `.bin`) to a
temporary folder, loads it strictly, asks one cold and one warm question, and deletes it. `--checkpoint DIR` takes
one that is there. `--convert` also writes it as safetensors. Memory is this process's; the
answers mean nothing.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from bench.harness import report
from bench.released_checkpoint import write_released_config, write_released_tokenizer, write_released_weights
from osprey_model import Osprey, Question
from osprey_model.config import PRESETS
from osprey_model.convert import convert_checkpoint
from osprey_model.prompts import CATEGORY

NANO = Path(__file__).parents[1] / "demo" / "checkpoints" / "osprey-nano"
NEEDED_DISK_GB = 40
NEEDED_MEMORY_GB = 18
_GB = 1e9


def missing(folder: Path) -> str | None:
    """What this machine lacks, or None."""
    disk_gb = shutil.disk_usage(folder).free / _GB
    if disk_gb < NEEDED_DISK_GB:
        return f"{disk_gb:.0f} GB of disk are free in {folder}, {NEEDED_DISK_GB} are needed"
    memory_gb = psutil.virtual_memory().available / _GB
    if memory_gb < NEEDED_MEMORY_GB:
        return f"{memory_gb:.1f} GB of memory are available, {NEEDED_MEMORY_GB} are needed"
    return None


def write_checkpoint(folder: Path) -> None:
    """Osprey-7b's layout: four shards here, two in the released one."""
    config = PRESETS["osprey-7b"]
    write_released_config(folder, config)
    write_released_tokenizer(folder, config.vocab_size, NANO)
    write_released_weights(folder, config, num_shards=4)


def measure(folder: Path, device: str, *, map_weights: bool) -> dict[str, Any]:
    """Load and answer."""
    started = time.perf_counter()
    osprey = Osprey.from_pretrained(folder, device=device, dtype=torch.bfloat16, map_weights=map_weights)
    loaded = time.perf_counter()
    image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    mask = np.zeros((480, 640), bool)
    mask[100:300, 200:420] = True
    times_s = []
    for _ in range(2):
        before = time.perf_counter()
        ((answer,),) = osprey.describe(image, [mask], [Question(CATEGORY, max_new_tokens=4)])
        times_s.append(time.perf_counter() - before)
    if not all(np.isfinite(answer.token_logprobs)):
        raise RuntimeError(f"the answer's log-probabilities are not finite: {answer.token_logprobs}")
    figures: dict[str, Any] = {
        "device": device,
        "map_weights": map_weights,
        "threads": torch.get_num_threads(),
        "parameters": sum(parameter.numel() for parameter in osprey.model.parameters()),
        "load_s": round(loaded - started, 1),
        "cold_answer_s": round(times_s[0], 2),
        "warm_answer_s": round(times_s[1], 2),
        "answer_tokens": len(answer.token_logprobs),
        "peak_memory_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / _GB, 2),
    }
    if device.startswith("cuda"):
        figures["peak_gpu_memory_gb"] = round(torch.cuda.max_memory_allocated() / _GB, 2)
    return figures


def main() -> None:
    """Parse the command line, measure, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, help="a full-size checkpoint folder instead of a random one")
    parser.add_argument("--convert", action="store_true", help="also write it as safetensors (14 GB more)")
    parser.add_argument("--map-weights", action="store_true", help="leave the weights in their files' pages")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where to write it")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    lacking = missing(arguments.folder)
    if lacking and not arguments.map_weights:  # mapped pages are given back when others need the memory
        parser.exit(3, f"not run: {lacking}\n")
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="osprey-full-size-") as scratch:
        folder = arguments.checkpoint
        if folder is None:
            folder = Path(scratch) / "released"
            folder.mkdir()
            started = time.perf_counter()
            write_checkpoint(folder)
            figures["write_s"] = round(time.perf_counter() - started, 1)
        if arguments.convert:
            started = time.perf_counter()
            figures["tensors"] = convert_checkpoint(folder, Path(scratch) / "converted")
            figures["convert_s"] = round(time.perf_counter() - started, 1)
            figures["convert_peak_memory_gb"] = round(
                resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / _GB, 2
            )
            shutil.rmtree(Path(scratch) / "converted")
        figures |= measure(folder, arguments.device, map_weights=arguments.map_weights)
    report("full-size", figures, arguments.out)


if __name__ == "__main__":
    main()
