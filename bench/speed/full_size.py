"""The full-size Osprey with random weights: memory, and seconds to load, to answer and to train on one sample.

`python -m bench.speed.full_size` writes a checkpoint in the released layout (14 GB, sharded bfloat16 `.bin`) to a
temporary folder, loads it strictly, asks one cold and one warm question, and deletes it. `--checkpoint DIR` uses an
existing one. `--convert` also writes it as safetensors. `--train` takes one LoRA step with `osprey_model.training`
(bfloat16, rank 64, gradient checkpointing). On a GPU, --train is the default and the result is kept in
`bench/results/`. `--preset osprey-nano` runs everything at a small size, in seconds. Memory is that of this process.
The answers are meaningless.
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import shutil
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from PIL import Image

from bench.harness import RESULTS, report
from bench.speed.released_checkpoint import write_released_config, write_released_tokenizer, write_released_weights
from demo.small_models import OSPREY_NANO
from osprey_model import Osprey, Question
from osprey_model.config import PRESETS
from osprey_model.inputs.prompts import CATEGORY
from osprey_model.training.run import TrainingRun
from osprey_model.training.train import train
from osprey_model.weights.convert import convert_checkpoint

NEEDED_DISK_GB = 40
NEEDED_MEMORY_GB = 18
FULL_SIZE = "osprey-7b"
_GB = 1e9


def missing(folder: Path) -> str | None:
    """Return what this machine lacks for the full size, or None."""
    disk_gb = shutil.disk_usage(folder).free / _GB
    if disk_gb < NEEDED_DISK_GB:
        return f"{disk_gb:.0f} GB of disk are free in {folder}, {NEEDED_DISK_GB} are needed"
    memory_gb = psutil.virtual_memory().available / _GB
    if memory_gb < NEEDED_MEMORY_GB:
        return f"{memory_gb:.1f} GB of memory are available, {NEEDED_MEMORY_GB} are needed"
    return None


def write_checkpoint(folder: Path, preset: str = FULL_SIZE) -> None:
    """Write a checkpoint in Osprey-7b's layout, in four shards (the released one has two).

    For other sizes, config.json also has the keys that the released one lacks.
    """
    config = PRESETS[preset]
    write_released_config(folder, config)
    if preset != FULL_SIZE:
        (folder / "config.json").write_text(json.dumps(config.to_dict()))
    write_released_tokenizer(folder, config.vocab_size, OSPREY_NANO)
    write_released_weights(folder, config, num_shards=4)


def measure(folder: Path, device: str, *, map_weights: bool) -> dict[str, Any]:
    """Load the model and ask one cold and one warm question."""
    started = time.perf_counter()
    osprey = Osprey.from_pretrained(folder, device=device, dtype=torch.bfloat16, map_weights=map_weights)
    loaded = time.perf_counter()
    image = _picture()
    mask = np.zeros(image.shape[:2], bool)
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
        "load_s": round(loaded - started, 2),
        "cold_answer_s": round(times_s[0], 2),
        "warm_answer_s": round(times_s[1], 2),
        "answer_tokens": len(answer.token_logprobs),
        "peak_memory_gb": _peak_memory_gb(),
    }
    if device.startswith("cuda"):
        figures["peak_gpu_memory_gb"] = round(torch.cuda.max_memory_allocated() / _GB, 2)
    return figures


def measure_training(folder: Path, scratch: Path, device: str) -> dict[str, Any]:
    """Take one optimizer step of stage lora on one region, through everything that `osprey train` does."""
    gc.collect()
    on_gpu = device.startswith("cuda")
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    Image.fromarray(_picture()).save(scratch / "picture.png")
    entry = {
        "file_name": "picture.png",
        "height": 480,
        "width": 640,
        "annotation": [{"bbox": [200, 100, 220, 200], "segmentation": [[200, 100, 420, 100, 420, 300, 200, 300]]}],
        "conversations": [
            {"from": "human", "value": "What is the category of <region1>?"},
            {"from": "gpt", "value": "boat"},
        ],
    }
    row = {"type": "OspreyShortForm", "ann_file": "entries.json", "img_prefix": "."}
    (scratch / "entries.json").write_text(json.dumps([entry]))
    (scratch / "data.json").write_text(json.dumps([row]))
    started = time.perf_counter()
    result = train(
        TrainingRun(
            "lora", folder, scratch / "data.json", scratch / "adapter", max_steps=1, batch_size=1, log_steps=1,
            bf16=True, gradient_checkpointing=True, device="auto" if on_gpu else "cpu", progress=False,
        )
    )  # fmt: skip
    if not np.isfinite(result.final_loss):
        raise RuntimeError(f"the loss of the training step is {result.final_loss}")
    figures: dict[str, Any] = {
        "train_stage": "lora",
        "train_loss": round(result.final_loss, 4),
        "train_step_s": round(result.seconds, 2),  # with the checkpoint after it
        "train_all_s": round(time.perf_counter() - started, 1),  # with loading, and writing the adapter
        "adapter_mb": round((result.out / "adapter_model.safetensors").stat().st_size / 1e6, 1),
        "peak_memory_with_training_gb": _peak_memory_gb(),
    }
    if on_gpu:
        figures["train_peak_gpu_memory_gb"] = round(torch.cuda.max_memory_allocated() / _GB, 2)
    return figures


def _picture() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)


def _peak_memory_gb() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / _GB, 2)


def _kept_result() -> Path:
    gpu = torch.cuda.get_device_name().removeprefix("NVIDIA ").split()[0].lower()
    return RESULTS / f"full-size_{gpu}_{datetime.now(UTC):%Y%m}.json"


def main() -> None:
    """Read the command line, measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, help="an existing checkpoint folder, instead of random weights")
    parser.add_argument("--convert", action="store_true", help="also write it as safetensors (14 GB more)")
    parser.add_argument("--map-weights", action="store_true", help="map the weights from their files")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--preset", choices=sorted(PRESETS), default=FULL_SIZE, help="size of the random weights")
    parser.add_argument(
        "--train", action=argparse.BooleanOptionalAction, default=None, help="also one LoRA step; default on a GPU"
    )
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where to write files")
    parser.add_argument("--out", type=Path, help="result file; default on a GPU: in bench/results")
    arguments = parser.parse_args()
    on_gpu = arguments.device.startswith("cuda")
    lacking = missing(arguments.folder) if arguments.preset == FULL_SIZE else None
    if lacking and not arguments.map_weights:  # the system can drop mapped pages when memory runs out
        parser.exit(3, f"not run: {lacking}\n")
    figures: dict[str, Any] = {"preset": arguments.preset}
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="osprey-full-size-") as scratch:
        folder = arguments.checkpoint
        if folder is None:
            folder = Path(scratch) / "released"
            folder.mkdir()
            started = time.perf_counter()
            write_checkpoint(folder, arguments.preset)
            figures["write_s"] = round(time.perf_counter() - started, 1)
        if arguments.convert:
            started = time.perf_counter()
            figures["tensors"] = convert_checkpoint(folder, Path(scratch) / "converted")
            figures["convert_s"] = round(time.perf_counter() - started, 1)
            figures["convert_peak_memory_gb"] = _peak_memory_gb()
            shutil.rmtree(Path(scratch) / "converted")
        figures |= measure(folder, arguments.device, map_weights=arguments.map_weights)
        if on_gpu if arguments.train is None else arguments.train:
            figures |= measure_training(folder, Path(scratch), arguments.device)
    keep_at = _kept_result() if on_gpu and arguments.preset == FULL_SIZE else None
    report("full-size", figures, arguments.out or keep_at)


if __name__ == "__main__":
    main()
