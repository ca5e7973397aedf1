"""What an export says about things that are not in it, or not as they were submitted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# task: a task, annotation or item that cannot be read; mask: no usable mask; control: the config has changed under
# it; text: a text that is left out or written differently; image: gone, damaged or of another size.
ProblemKind = Literal["task", "mask", "control", "text", "image"]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is not in the export or not as it was submitted, and why."""

    task: int | None
    annotation: int | None
    region: str | None
    problem: str
    kind: ProblemKind = "task"
