"""One click: everything that is known about it before a mask is looked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backend.click.page import Page
from backend.click.prompts import Prompt
from backend.click.timings import Timings
from job_queue.contracts import ImageRef
from label_config.reader import LabelConfig


@dataclass(frozen=True)
class Click:
    """One interactive request, read.

    `task` is the request's task, `task_key` the name under which its regions are remembered. `timings` is filled
    while the click is answered.
    """

    task: Mapping[str, Any]
    task_key: str
    config: LabelConfig
    prompt: Prompt
    page: Page
    image: ImageRef
    timings: Timings
