"""The contracts: the jobs and answers that cross the queue, frozen and as JSON.

A sender fills a job and a worker answers it; `job_kinds.py` lists the jobs with the functions that answer them. Masks
travel as COCO RLE (`mask_codec.py`), images as references that the worker resolves (`worker/images/resolver.py`).
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
    """Base of the contracts: to JSON and back."""

    def to_json(self) -> dict[str, Any]:
        """A dict of plain JSON values with the contract's `version`."""
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
                f"{cls.__name__} of contract version {version!r} reached a process that speaks version "
                f"{CONTRACT_VERSION}; restart backend and workers from the same release"
            )
        return build_record(cls, data)

    def content_id(self) -> str:
        """Return 40 hex digits that depend only on the content: job id and cache key."""
        canonical = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(f"{type(self).__name__}:{canonical}".encode()).hexdigest()[:40]


@dataclass(frozen=True, slots=True)
class ImageRef(Contract):
    """Where a task's image is. `url` is what the task's data holds, relative or absolute."""

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
    """Points and/or a box on one image -> up to three candidate masks.

    `image_wh` is the upright size that Label Studio showed: the answer's masks have exactly it.
    `previous_logits_id` names the low-resolution logits of the mask that a further click refines.
    """

    image: ImageRef
    image_wh: tuple[int, int]
    points: tuple[PromptPoint, ...] = ()
    box_px_xyxy: tuple[float, float, float, float] | None = None
    previous_logits_id: str | None = None
    model_version: str | None = None  # None: whatever the worker serves


@dataclass(frozen=True, slots=True)
class MaskCandidate(Contract):
    """One of SAM's masks. `stability` is the IoU of the mask cut at logit +1 and at -1."""

    mask: Rle
    predicted_iou: float
    stability: float
    area_px: int
    logits_id: str | None = None


@dataclass(frozen=True, slots=True)
class SegmentAnswer(Contract):
    """Candidates sorted by area, smallest first: sub-part, part, whole. Never empty masks."""

    candidates: tuple[MaskCandidate, ...]
    image_wh: tuple[int, int]
    image_sha256: str
    model_version: str
    timings_ms: dict[str, float] = field(default_factory=dict)


QuestionForm = Literal["region", "part"]


@dataclass(frozen=True, slots=True)
class Question(Contract):
    """One question about one region; several may fill the same control (`field`).

    `text` holds `{region}`. Form "region" puts the region's placeholder there; form "part" is the
    trained short form: preamble with `region1`, the text naming `region1`, "single word or phrase".
    `choices` non-empty: the answer is one of them and nothing else (several when `multiple`).
    `mask_idx` picks which of the region's masks is asked about (0 its own, 1 its object's).
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
    """One region: its own mask first, then (for a part) the mask of the object it belongs to."""

    region_id: str
    masks: tuple[Rle, ...]
    questions: tuple[Question, ...]


@dataclass(frozen=True, slots=True)
class DescribeJob(Contract):
    """All questions on all regions of one image: one engine call."""

    image: ImageRef
    image_wh: tuple[int, int]
    regions: tuple[RegionQuery, ...]
    model_version: str | None = None


@dataclass(frozen=True, slots=True)
class Alternative(Contract):
    """Another value the model thought possible, with its probability."""

    text: str
    probability: float


@dataclass(frozen=True, slots=True)
class FieldAnswer(Contract):
    """The answer to `questions[question_idx]` of a region. `values` is empty when nothing applies."""

    region_id: str
    question_idx: int
    field: str
    values: tuple[str, ...]
    confidence: float
    alternatives: tuple[Alternative, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DescribeAnswer(Contract):
    """Every answer of a `DescribeJob`, ordered as its regions and questions."""

    answers: tuple[FieldAnswer, ...]
    image_sha256: str
    model_version: str
    timings_ms: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WarmJob(Contract):
    """Embed an image (and prefill its prefix) before anyone clicks."""

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
    """A webhook's hint: these tasks, or the tasks of these annotations, may have changed.

    `updated_at` of an annotation makes each of its changes a job of its own, and a webhook that comes twice one job.
    """

    project_id: int
    task_ids: tuple[int, ...] = ()
    annotation_ids: tuple[int, ...] = ()
    updated_at: str = ""
    action: str = ""


@dataclass(frozen=True, slots=True)
class ReconcileJob(Contract):
    """Look for what no webhook told; None: in every project. `full` also looks for deleted tasks."""

    project_id: int | None = None
    full: bool = False


@dataclass(frozen=True, slots=True)
class PrelabelJob(Contract):
    """Pre-annotate a project, or what is left of it after a task; see `worker.prelabel.project`."""

    project_id: int
    run_id: str
    task_ids: tuple[int, ...] | None = None  # None: all
    max_regions: int = 50
    min_score: float = 0.0
    force: bool = False
    after_task_id: int | None = None


@dataclass(frozen=True, slots=True)
class ExportJob(Contract):
    """Write a version of training data of what the store has of a project; see `learning.export.version`."""

    project_id: int
    layout: Literal["osprey-724k", "coco", "parquet"] = "osprey-724k"
    with_images: bool = True
    held_out_share: float = 0.1
    seed: int = 0
    edited_weight: float = 3.0


@dataclass(frozen=True, slots=True)
class FineTuneJob(Contract):
    """Train on what the store has of a project and examine the result; how, is in the trainer's own settings."""

    project_id: int
    reason: str = "by hand"


@dataclass(frozen=True, slots=True)
class TriggerJob(Contract):
    """Look whether a project has enough new corrections for a fine-tune. `at_any_count`: whenever there is one."""

    at_any_count: bool = False
