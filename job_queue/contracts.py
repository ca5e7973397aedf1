"""The contracts: the jobs and answers that cross the queue, as frozen dataclasses and as JSON.

A sender submits a job and a worker answers it; `job_kinds.py` lists the jobs with the functions that answer them. A job
contains masks as COCO RLE (`mask_codec.py`), and images as references that the worker resolves
(`worker/images/resolver.py`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from typing_extensions import TypedDict  # pydantic reads this one on Python 3.11

from job_queue.records import build_record

CONTRACT_VERSION = 1


class Rle(TypedDict):
    """A binary mask as COCO RLE: `size` is [height, width], `counts` the compressed string."""

    size: list[int]
    counts: str


class Contract:
    """Base class of the contracts: conversion to JSON and back."""

    def to_json(self) -> dict[str, Any]:
        """Return a dict of plain JSON values, with the version of the contracts as `version`."""
        return {"version": CONTRACT_VERSION, **dataclasses.asdict(self)}  # type: ignore[call-overload]

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Read what `to_json` wrote, in this release or another one.

        Unknown keys are ignored and missing ones take their default: see `records.py`.

        Raises:
            ValueError: another contract version, a missing key without a default, or a value of another type.
        """
        version = data.get("version")
        if version != CONTRACT_VERSION:
            raise ValueError(
                f"{cls.__name__} of contract version {version!r} reached a process that expects version "
                f"{CONTRACT_VERSION}; restart backend and workers from the same release"
            )
        return build_record(cls, data)

    def content_id(self) -> str:
        """Return 40 hex digits that depend only on the content. They are the job id and the key of caches."""
        canonical = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(f"{type(self).__name__}:{canonical}".encode()).hexdigest()[:40]


@dataclass(frozen=True, slots=True)
class ImageRef(Contract):
    """A reference to a task's image. `url` is the text in the task's data, relative or absolute."""

    url: str
    task_id: int | None = None
    project_id: int | None = None


@dataclass(frozen=True, slots=True)
class PromptPoint(Contract):
    """One click, in pixels of the upright (EXIF-corrected) image."""

    x_px: float
    y_px: float
    positive: bool = True


@dataclass(frozen=True, slots=True)
class SegmentJob(Contract):
    """Find up to three candidate masks for points, a box, or both, on one image.

    Attributes:
        image: the image.
        image_wh: the upright (EXIF-corrected) size that Label Studio shows, which is the size of the answer's masks.
        points: positive and negative clicks.
        box_px_xyxy: a box, in pixels of the upright image.
        previous_logits_id: names the low-resolution logits of the mask that a further click refines.
        model_version: the version that has to answer; None: the version that the worker serves.
    """

    image: ImageRef
    image_wh: tuple[int, int]
    points: tuple[PromptPoint, ...] = ()
    box_px_xyxy: tuple[float, float, float, float] | None = None
    previous_logits_id: str | None = None
    model_version: str | None = None


@dataclass(frozen=True, slots=True)
class MaskCandidate(Contract):
    """One of SAM's masks. `stability` is the IoU of the masks that thresholds of +1 and -1 cut from the logits."""

    mask: Rle
    predicted_iou: float
    stability: float
    area_px: int
    logits_id: str | None = None


@dataclass(frozen=True, slots=True)
class SegmentAnswer(Contract):
    """The candidates for a `SegmentJob`, sorted by area, smallest first: sub-part, part, whole. No mask is empty."""

    candidates: tuple[MaskCandidate, ...]
    image_wh: tuple[int, int]
    image_sha256: str
    model_version: str
    timings_ms: dict[str, float] = field(default_factory=dict)


QuestionForm = Literal["region", "part"]


@dataclass(frozen=True, slots=True)
class Question(Contract):
    """One question about one region. Several questions may fill the same control.

    Attributes:
        field: the name of the control that the answer fills.
        text: the question, with `{region}` for the region.
        form: "region" puts the region's placeholder into the text. "part" is the short form of the training data: a
            preamble that introduces `region1`, the text about `region1`, and "single word or phrase".
        choices: if not empty, the answer is one of them; several of them if `multiple`.
        multiple: whether several choices may be the answer.
        mask_idx: which of the region's masks the question is about: 0 its own mask, 1 the mask of its object.
        max_new_tokens: limit of the answer's length.
    """

    field: str
    text: str
    form: QuestionForm = "region"
    choices: tuple[str, ...] = ()
    multiple: bool = False
    mask_idx: int = 0
    max_new_tokens: int = 32


@dataclass(frozen=True, slots=True)
class RegionQuery(Contract):
    """The questions about one region. `masks`: its own mask, then for a part the mask of the object it belongs to."""

    region_id: str
    masks: tuple[Rle, ...]
    questions: tuple[Question, ...]


@dataclass(frozen=True, slots=True)
class DescribeJob(Contract):
    """Answer all questions about all regions of one image, in one call of the engine."""

    image: ImageRef
    image_wh: tuple[int, int]
    regions: tuple[RegionQuery, ...]
    model_version: str | None = None


@dataclass(frozen=True, slots=True)
class Alternative(Contract):
    """Another possible value, with the probability that the model gives it."""

    text: str
    probability: float


@dataclass(frozen=True, slots=True)
class FieldAnswer(Contract):
    """The answer to `questions[question_idx]` of a region. `values` is empty when no choice applies."""

    region_id: str
    question_idx: int
    field: str
    values: tuple[str, ...]
    confidence: float
    alternatives: tuple[Alternative, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DescribeAnswer(Contract):
    """All answers to a `DescribeJob`, in the order of its regions and questions."""

    answers: tuple[FieldAnswer, ...]
    image_sha256: str
    model_version: str
    timings_ms: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WarmJob(Contract):
    """Encode an image, or compute its shared prompt prefix, before the first click on it."""

    image: ImageRef


@dataclass(frozen=True, slots=True)
class LookAheadJob(Contract):
    """Warm the tasks that follow `task_id` in its project, which its annotator opens next.

    `image_key` is the key of the image in a task's data.
    """

    project_id: int
    task_id: int
    image_key: str
    count: int


@dataclass(frozen=True, slots=True)
class CollectJob(Contract):
    """Read tasks that may have changed according to a webhook: these tasks, or the tasks of these annotations.

    `updated_at` is the time of an annotation's change. It is part of the job's id, so each change is a job of its own,
    and a webhook that arrives twice is only one job.
    """

    project_id: int
    task_ids: tuple[int, ...] = ()
    annotation_ids: tuple[int, ...] = ()
    updated_at: str = ""
    action: str = ""


@dataclass(frozen=True, slots=True)
class ReconcileJob(Contract):
    """Look for changes that no webhook reported, in one project or, without `project_id`, in all projects.

    `full` also looks for deleted tasks.
    """

    project_id: int | None = None
    full: bool = False


@dataclass(frozen=True, slots=True)
class PrelabelJob(Contract):
    """Pre-annotate a project, or its tasks after `after_task_id`; see `worker.prelabel.project`."""

    project_id: int
    run_id: str
    task_ids: tuple[int, ...] | None = None  # None: all
    max_regions: int = 50
    min_score: float = 0.0
    force: bool = False
    after_task_id: int | None = None


@dataclass(frozen=True, slots=True)
class ExportJob(Contract):
    """Write the stored submissions of a project as a version of training data; see `learning.export.version`."""

    project_id: int
    layout: Literal["osprey-724k", "coco", "parquet"] = "osprey-724k"
    with_images: bool = True
    held_out_share: float = 0.1
    seed: int = 0
    edited_weight: float = 3.0


@dataclass(frozen=True, slots=True)
class FineTuneJob(Contract):
    """Fine-tune on the stored submissions of a project and run the gate, with the settings of the training worker."""

    project_id: int
    reason: str = "by hand"


@dataclass(frozen=True, slots=True)
class TriggerJob(Contract):
    """Enqueue a fine-tune for each project with enough new corrections. `at_any_count`: one correction is enough."""

    at_any_count: bool = False
