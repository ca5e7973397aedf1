"""The record of something submitted that an export leaves out or changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# task: a task, annotation or item cannot be read; mask: there is no usable mask; control: the labeling config has
# changed since; text: a text is left out or changed; image: it is missing, damaged or has another size.
ProblemKind = Literal["task", "mask", "control", "text", "image"]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that the export leaves out or changes, and the reason."""

    task: int | None
    annotation: int | None
    region: str | None
    problem: str
    kind: ProblemKind = "task"
