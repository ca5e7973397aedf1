"""Run `osprey train` for a launch with fsdp.yaml on processes without GPUs.

accelerate allows FSDP only on GPUs, although torch also shards over gloo. It is patched here to count the processes of
gloo as devices. The argument is the JSON of a `TrainingRun`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from accelerate.state import PartialState
from accelerate.utils import DistributedType

from osprey_model.training.run import TrainingRun
from osprey_model.training.train import train

_initialise = PartialState.__init__


def _as_devices(self: PartialState, *arguments: Any, **options: Any) -> None:
    _initialise(self, *arguments, **options)
    if self.distributed_type == DistributedType.MULTI_CPU:
        self.distributed_type = DistributedType.MULTI_GPU


if __name__ == "__main__":
    PartialState.__init__ = _as_devices
    given = json.loads(sys.argv[1])
    train(TrainingRun(**{**given, **{name: Path(given[name]) for name in ("model", "data", "out")}}))
