"""What goes into the correction store and what comes out of it: plain frozen records, no database.

`collect.py` makes a `TaskState` of what Label Studio answers; `store.py` keeps it and gives `StoredRegion` back.
"""

from __future__ import annotations

from dataclasses import dataclass

from learning.submitted.problems import Problem
from learning.submitted.regions import SubmittedRegion


@dataclass(frozen=True, slots=True)
class AnnotationState:
    """One annotation of a task as Label Studio has it now.

    `digest` changes whenever anything of it does. `is_complete`: the labeling config knew all of its controls; what was
    read so stays as it is when the config changes. `blind` holds the ids of the regions that were answered without
    words. A skipped annotation has no regions.
    """

    annotation_id: int
    digest: str
    annotator: int | None = None
    created_at: str | None = None
    updated_at: str | None = None
    lead_time_s: float | None = None
    is_skipped: bool = False
    is_complete: bool = True
    regions: tuple[SubmittedRegion, ...] = ()
    blind: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class TaskState:
    """A task with all its annotations, read under one labeling config. `stamp` as `task_stamp` gives it."""

    project_id: int
    task_id: int
    stamp: str
    config_hash: str
    image_url: str = ""
    image_name: str = ""
    image_sha256: str | None = None
    arm: str = "uncertainty"
    annotations: tuple[AnnotationState, ...] = ()
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class StoredRegion:
    """One region that a person submitted, with where it came from.

    `region` holds mask, final words, the model's words (`suggestion`), what was changed, confidence, annotator, lead
    time and versions. `is_blind`: it was answered without words, so `suggestion` is what the model would have said.
    `arm` is the arm of the queue, `config_hash` names the labeling config at that time (`Store.label_config`).
    `revision` grows with every change of the project.
    """

    project_id: int
    region: SubmittedRegion
    image_url: str
    image_sha256: str | None
    config_hash: str
    created_at: str | None
    is_blind: bool
    is_corrected: bool
    arm: str
    revision: int


@dataclass(frozen=True, slots=True)
class Pair:
    """What the model said about one field of a region (None: nothing) and what the person kept ([]: nothing)."""

    task_id: int
    annotation_id: int
    region_id: str
    field: str
    predicted: list[str] | None
    final: list[str]
    is_changed: bool | None
    confidence: float | None
    model_version: str | None
    is_blind: bool


@dataclass(frozen=True, slots=True)
class Counts:
    """A project's figures."""

    tasks: int = 0
    annotations: int = 0
    skipped_annotations: int = 0
    deleted_annotations: int = 0
    regions: int = 0
    corrected_regions: int = 0
    drawn_regions: int = 0  # without a word from the model
    blind_regions: int = 0
    problems: int = 0


@dataclass(frozen=True, slots=True)
class Corrections:
    """What came after a revision: regions of new or changed annotations, and up to which revision that is."""

    revision: int
    regions: int
    corrected_regions: int
