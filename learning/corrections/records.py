"""The records that enter and leave the correction store. No database here.

`collect.py` makes a `TaskState` from Label Studio's answer; `store.py` saves it and returns `StoredRegion` records.
"""

from __future__ import annotations

from dataclasses import dataclass

from learning.submitted.problems import Problem
from learning.submitted.regions import SubmittedRegion


@dataclass(frozen=True, slots=True)
class AnnotationState:
    """One annotation of a task as Label Studio has it now.

    Attributes:
        annotation_id: Label Studio's number.
        digest: hash of the content; it changes with every change of the annotation.
        annotator: number of the annotator.
        created_at: by Label Studio's clock.
        updated_at: by Label Studio's clock.
        lead_time_s: Label Studio's lead time.
        is_skipped: whether it was skipped; then it has no regions.
        is_complete: whether the labeling config had all of its controls. Such an annotation is not read again when
            the config changes.
        regions: its regions in stored order.
        blind: ids of the regions whose fields the backend left empty.
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
    """A task with all its annotations, read under one labeling config.

    `stamp` is that of `worker.label_studio.annotations.stamp_of`.
    """

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
    """One submitted region with its origin.

    Attributes:
        project_id: the project.
        region: mask, final values, suggestion, confidence, annotator, lead time and versions.
        image_url: address of the image.
        image_sha256: hash of the image's bytes; None if the image was not checked.
        config_hash: names the labeling config it was read with (`Store.label_config`).
        created_at: when the annotation was created, by Label Studio's clock.
        is_blind: the backend left the fields empty; `suggestion` is the answer that was not shown.
        is_corrected: whether a field differs from its suggestion.
        arm: arm of the task in the order of tasks, "uncertainty" or "random".
        revision: the project's revision when the annotation was last stored.
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
    """One field of a region: the model's answer (None: no answer) and the final value ([]: left empty)."""

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
    """Counts of a project in the store."""

    tasks: int = 0
    annotations: int = 0
    skipped_annotations: int = 0
    deleted_annotations: int = 0
    regions: int = 0
    corrected_regions: int = 0
    drawn_regions: int = 0  # without an answer of the model
    blind_regions: int = 0
    problems: int = 0


@dataclass(frozen=True, slots=True)
class Corrections:
    """Regions of annotations that were added or changed after a revision, up to and including `revision`."""

    revision: int
    regions: int
    corrected_regions: int
