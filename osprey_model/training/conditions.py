"""What a run computes on. Two runs on the same conditions give the same numbers, to the last bit on a CPU.

A checkpoint holds them as `conditions.json`. A continuation sets the thread count back and compares the rest. Floating
point sums depend on their order, so another thread count, processor or library version changes the last digit of a
loss, and a thousand steps later more than that.
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
    """A continuation would not be bit for bit what the run would have been."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """All that decides the last bit of a number, besides what `TrainingRun.facts` compares.

    Attributes:
        threads: of PyTorch within one operation on the CPU.
        device_type: "cpu", "cuda" or another of PyTorch's.
        device_name: the model of the processor or the GPU.
        cpu_capability: the vector instructions that PyTorch chose on this processor.
        dtype: the forward pass computes in it.
        world_size: processes that train together.
        torch: its version.
        transformers: its version.
        accelerate: its version.
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
        """Those of this process, with the device, precision and number of processes of its arguments."""
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
        """Into a checkpoint, before it is sealed."""
        text = json.dumps(dataclasses.asdict(self), indent=2)
        (folder / CONDITIONS_FILE).write_text(text + "\n", encoding="utf-8")


def read_conditions(folder: Path) -> dict[str, Any]:
    """What a checkpoint says of its conditions: nothing if an older release wrote it; unknown keys are left out."""
    try:
        values = json.loads((folder / CONDITIONS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    names = {field.name for field in dataclasses.fields(Conditions)}
    return {name: value for name, value in values.items() if name in names} if isinstance(values, dict) else {}


@contextlib.contextmanager
def continued(folder: Path | None, arguments: TrainingArguments, *, exact: bool) -> Iterator[None]:
    """Train on as many threads as a checkpoint was written with; afterwards the process has its own number again.

    Args:
        folder: the checkpoint that is continued; None: a run begins.
        arguments: of this process.
        exact: refuse where numbers may differ, instead of one line in the log.

    Raises:
        NotExact: with `exact`; the message names each condition with both values.
    """
    if folder is None:
        yield
        return
    then = read_conditions(folder)
    with _threads(then.get("threads")):
        differences = _differences(then, Conditions.now(arguments))
        if differences and exact:
            raise NotExact(
                f"{folder} cannot be continued bit for bit: {differences}. Continue under the recorded conditions, "
                "or without --exact, which accepts small differences"
            )
        if differences and arguments.process_index == 0:
            logger.warning("the continuation of %s is not bit for bit: %s", folder, differences)
        yield


def _differences(then: dict[str, Any], now: Conditions) -> str:
    """Every condition that is another one, or that the checkpoint does not say, with what was expected and what is."""
    if not then:
        return "the checkpoint does not record its conditions (an older release wrote it)"
    present = dataclasses.asdict(now)
    return "; ".join(
        f"{name}: expected {then[name]!r}, is {value!r}" if name in then else f"{name}: not recorded, is {value!r}"
        for name, value in present.items()
        if name not in then or then[name] != value
    )


@contextlib.contextmanager
def _threads(count: Any) -> Iterator[None]:
    before = torch.get_num_threads()
    if isinstance(count, int) and not isinstance(count, bool) and count > 0:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _processor_name() -> str:
    """As Linux calls it; elsewhere what Python knows of it."""
    try:
        lines = _CPU_INFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
