"""The conditions of a run: threads, device, precision and library versions.

Two runs under the same conditions give the same numbers, on a CPU to the last bit. A floating-point sum depends on its
order, so another thread count, processor or library version changes the last digit of a loss, and the difference grows
with every step. A checkpoint stores its conditions as `conditions.json`; a continuation restores the thread count and
compares the rest.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import accelerate
import torch
import transformers
from transformers import TrainingArguments

CONDITIONS_FILE = "conditions.json"
_CPU_INFO = Path("/proc/cpuinfo")

logger = logging.getLogger(__name__)


class NotExact(ValueError):
    """A continuation might compute other numbers than the run without a stop."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """Everything that affects the last bit of a number, besides what `TrainingRun.facts` compares.

    Attributes:
        threads: number of threads that PyTorch uses within one operation on the CPU.
        device_type: PyTorch's device type, such as "cpu" or "cuda".
        device_name: model of the processor or the GPU.
        cpu_capability: vector instructions that PyTorch uses on this processor.
        dtype: dtype of the forward pass.
        world_size: number of processes that train together.
        torch: version of torch.
        transformers: version of transformers.
        accelerate: version of accelerate.
    """

    threads: int
    device_type: str
    device_name: str
    cpu_capability: str
    dtype: str
    world_size: int
    torch: str
    transformers: str
    accelerate: str

    @classmethod
    def now(cls, arguments: TrainingArguments) -> Conditions:
        """Return the conditions of this process; device, precision and number of processes are those of `arguments`."""
        device = arguments.device
        return cls(
            threads=torch.get_num_threads(),
            device_type=device.type,
            device_name=torch.cuda.get_device_name(device) if device.type == "cuda" else _processor_name(),
            cpu_capability=torch.backends.cpu.get_cpu_capability(),
            dtype="bfloat16" if arguments.bf16 else "float32",
            world_size=arguments.world_size,
            torch=str(torch.__version__),
            transformers=transformers.__version__,
            accelerate=accelerate.__version__,
        )

    def write(self, folder: Path) -> None:
        """Write the conditions into a checkpoint folder, before it is sealed."""
        text = json.dumps(dataclasses.asdict(self), indent=2)
        (folder / CONDITIONS_FILE).write_text(text + "\n", encoding="utf-8")


def read_conditions(folder: Path) -> dict[str, Any]:
    """Return the conditions that a checkpoint records, without unknown keys; empty if an older release wrote it."""
    try:
        values = json.loads((folder / CONDITIONS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    names = {field.name for field in dataclasses.fields(Conditions)}
    return {name: value for name, value in values.items() if name in names} if isinstance(values, dict) else {}


@contextlib.contextmanager
def continued(folder: Path | None, arguments: TrainingArguments, *, exact: bool) -> Iterator[None]:
    """Set the thread count that a checkpoint records for the duration of the block, and compare the other conditions.

    Args:
        folder: the checkpoint that is continued; None: a new run, nothing is compared.
        arguments: the Trainer's arguments in this process.
        exact: raise an error if conditions differ; otherwise only a warning is logged.

    Raises:
        NotExact: `exact` is on and conditions differ; the message has both values of each.
    """
    if folder is None:
        yield
        return
    then = read_conditions(folder)
    with _threads(then.get("threads")):
        found = differences(then, Conditions.now(arguments))
        if found and exact:
            raise NotExact(
                f"{folder} cannot be continued bit for bit: {found}. Continue under the recorded conditions, "
                "or without --exact, which accepts small differences"
            )
        if found and arguments.process_index == 0:
            logger.warning("the continuation of %s is not bit for bit: %s", folder, found)
        yield


def differences(then: dict[str, Any], now: Conditions) -> str:
    """List the conditions that differ or are not recorded, with recorded and present value; empty: there are none."""
    if not then:
        return "the checkpoint does not record its conditions (an older release wrote it)"
    listed = [
        f"{name}: expected {then[name]!r}, is {value!r}" if name in then else f"{name}: not recorded, is {value!r}"
        for name, value in dataclasses.asdict(now).items()
        if name not in then or then[name] != value
    ]
    if now.device_type != "cpu":  # its kernels may add in another order each time
        listed.append(f"device_type: only 'cpu' repeats every bit, is {now.device_type!r}")
    return "; ".join(listed)


@contextlib.contextmanager
def _threads(count: Any) -> Iterator[None]:
    """Use `count` threads for the duration of the block; any value that is not a positive integer is ignored."""
    before = torch.get_num_threads()
    if isinstance(count, int) and not isinstance(count, bool) and count > 0:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _processor_name() -> str:
    """Return the processor's model name on Linux, on other systems what `platform` reports."""
    try:
        lines = _CPU_INFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
