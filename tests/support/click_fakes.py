"""A queue and a session memory without Redis, over a small drawn world: a ball (with a dot in it) and a box.

ball  circle around (160, 160) of radius 60, in the 512 x 384 image
dot   circle around (160, 160) of radius 20, a part of the ball
box   rectangle (300, 150) to (420, 300)
"""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from backend.click.region import Region, RegionRecord
from job_queue.contracts import (
    DescribeAnswer,
    DescribeJob,
    FieldAnswer,
    MaskCandidate,
    SegmentAnswer,
    SegmentJob,
)
from job_queue.errors import JobTimedOut
from job_queue.job_kinds import AnyJob
from job_queue.mask_codec import encode_mask
from job_queue.queue import QueueHealth, QueueState

WIDTH, HEIGHT = 512, 384
_rows, _columns = np.mgrid[:HEIGHT, :WIDTH]
BALL = (_columns - 160) ** 2 + (_rows - 160) ** 2 < 60**2
DOT = (_columns - 160) ** 2 + (_rows - 160) ** 2 < 20**2
BOX = (_columns >= 300) & (_columns < 420) & (_rows >= 150) & (_rows < 300)
SHAPES = {"dot": DOT, "ball": BALL, "box": BOX}  # smallest first

PAYLOADS = Path(__file__).parents[1] / "data" / "payloads"


def payload(name: str) -> dict[str, Any]:
    """Return the body of one recorded request of Label Studio."""
    return json.loads((PAYLOADS / f"{name}.json").read_text())["body"]


def words_for(text: str) -> str:
    """Return the fake model's answer to a question."""
    for key, words in {
        "category": "ball",
        "part": "dot",
        "color": "red",
        "material": "rubber",
        "short": "a red ball",
        "detailed": "A red ball on a white ground.",
    }.items():
        if key in text:
            return words
    return "something"


def region_record(region_id: str = "r1", mask: np.ndarray = BALL, **changes: Any) -> RegionRecord:
    """Return the record of an answered region; `changes` are fields of the record or of its region."""
    names = {each.name for each in dataclasses.fields(Region)}
    given = {"image_wh": (WIDTH, HEIGHT), "score": 0.9, "answered_at": 1.0, **changes}
    region = Region(region_id, mask=encode_mask(mask), **{name: given.pop(name) for name in names & given.keys()})
    return RegionRecord(region, **given)


class FakeQueue:
    """A queue that answers at once, unless a test sets an error or `describe_ready`; keeps jobs in `submitted`."""

    def __init__(self) -> None:
        self.submitted: list[AnyJob] = []
        self.jobs: dict[str, SegmentJob | DescribeJob] = {}
        self.failures: list[str] = []
        self.segment_error: Exception | None = None
        self.describe_error: Exception | None = None
        self.describe_ready = True  # False: only the first `partial` questions are answered
        self.partial = 0
        self.confidence = 0.9
        self.says = words_for
        self.before_segment: Callable[[], object] = lambda: None
        self.versions: tuple[str, ...] = ("osprey-nano-1",)
        self.lock = threading.Lock()

    def submit(self, job: AnyJob, *, bulk: bool = False) -> str:
        with self.lock:
            self.submitted.append(job)
        error = self.describe_error if isinstance(job, DescribeJob) else self.segment_error
        if error is not None:
            raise error
        job_id = job.content_id()
        if isinstance(job, (SegmentJob, DescribeJob)):
            self.jobs[job_id] = job
        return job_id

    def wait_segment(self, job_id: str, timeout_s: float) -> SegmentAnswer:
        self.before_segment()
        job = self.jobs[job_id]
        assert isinstance(job, SegmentJob)
        found = [mask for mask in _hit(job) if mask.any()]
        return SegmentAnswer(
            tuple(
                MaskCandidate(encode_mask(mask), 0.9 - 0.02 * idx, 0.95, int(mask.sum()), f"logits-{idx}")
                for idx, mask in enumerate(found)
            ),
            job.image_wh,
            "0" * 64,
            "sam-nano-1",
            {"decode": 5.0},
        )

    def wait_describe(self, job_id: str, timeout_s: float) -> DescribeAnswer:
        if not self.describe_ready:
            raise JobTimedOut(f"job {job_id} is started after {timeout_s} s")
        return DescribeAnswer(self._answers(job_id), "0" * 64, self.versions[-1], {"decode": 7.0})

    def partial_describe(self, job_id: str) -> tuple[FieldAnswer, ...]:
        return self._answers(job_id)[: self.partial]

    def health(self) -> QueueHealth:
        state = QueueState(workers=len(self.versions), model_versions=self.versions)
        return QueueHealth(redis_ok=True, queues={"masks": state, "describe": state})

    def record_failure(self, message: str, *, task_id: int | None = None, where: str = "backend") -> None:
        self.failures.append(message)

    def of_kind(self, kind: type) -> list[Any]:
        """Return the submitted jobs of one kind."""
        return [job for job in self.submitted if isinstance(job, kind)]

    def _answers(self, job_id: str) -> tuple[FieldAnswer, ...]:
        job = self.jobs[job_id]
        assert isinstance(job, DescribeJob)
        (region,) = job.regions
        answers = []
        for idx, question in enumerate(region.questions):
            words = self.says(question.text)
            if question.choices and words not in question.choices:
                words = question.choices[0]
            answers.append(FieldAnswer(region.region_id, idx, question.field, (words,), self.confidence))
        return tuple(answers)


class MemorySessions:
    """A `SessionStore` that keeps the same JSON in a dict."""

    def __init__(self) -> None:
        self.stored: dict[str, dict[str, str]] = {}

    def load(self, task_key: str) -> dict[str, RegionRecord]:
        records = [RegionRecord.from_json(json.loads(text)) for text in self.stored.get(task_key, {}).values()]
        return {record.region.region_id: record for record in sorted(records, key=lambda record: record.answered_at)}

    def save(self, task_key: str, record: RegionRecord) -> None:
        self.stored.setdefault(task_key, {})[record.region.region_id] = json.dumps(record.to_json())

    def forget(self, task_key: str) -> None:
        self.stored.pop(task_key, None)


class FixedVersion:
    """A `ServedVersion` with a fixed answer."""

    def current(self) -> str:
        return "osprey-nano-1"

    last_known = current


def _hit(job: SegmentJob) -> list[np.ndarray]:
    """Return the shapes that contain every positive point and no negative one, smallest first."""
    if job.box_px_xyxy is not None:
        x0, y0, x1, y1 = (int(edge) for edge in job.box_px_xyxy)
        return [mask & _window(x0, y0, x1, y1) for mask in SHAPES.values()]
    positives = [point for point in job.points if point.positive]
    negatives = [point for point in job.points if not point.positive]

    def holds(mask: np.ndarray, point: Any) -> bool:
        return bool(mask[int(point.y_px), int(point.x_px)])

    return [
        mask
        for mask in SHAPES.values()
        if any(holds(mask, point) for point in positives) and not any(holds(mask, point) for point in negatives)
    ]


def _window(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    return (_columns >= x0) & (_columns < x1) & (_rows >= y0) & (_rows < y1)


def point_item(x_px: float, y_px: float, item_id: str = "p1", *, positive: bool = True, **extra: Any) -> dict[str, Any]:
    """Return the result item of a smart click as Label Studio sends it."""
    return {
        "original_width": WIDTH,
        "original_height": HEIGHT,
        "image_rotation": 0,
        "value": {"x": x_px / WIDTH * 100, "y": y_px / HEIGHT * 100, "width": 0.2, "labels": []},
        "is_positive": positive,
        "id": item_id,
        "from_name": "click",
        "to_name": "image",
        "type": "keypoint",
        "origin": "manual",
        **extra,
    }


def box_item(x0: float, y0: float, x1: float, y1: float, item_id: str = "b1") -> dict[str, Any]:
    """Return the result item of a smart rectangle as Label Studio sends it."""
    value = {"x": x0 / WIDTH * 100, "y": y0 / HEIGHT * 100, "width": (x1 - x0) / WIDTH * 100}
    return {
        "original_width": WIDTH,
        "original_height": HEIGHT,
        "image_rotation": 0,
        "value": {**value, "height": (y1 - y0) / HEIGHT * 100, "rotation": 0},
        "id": item_id,
        "from_name": "box",
        "to_name": "image",
        "type": "rectangle",
        "origin": "manual",
    }


def draft_of(items: list[dict[str, Any]], updated_at: str, user: str = "ann@example.com") -> dict[str, Any]:
    """Return a draft with these result items as Label Studio stores them: each item repeats the geometry."""
    geometry = next(item for item in items if "score" in item)
    stored = [{**item, "value": {**geometry["value"], **item["value"]}} for item in items]
    return {"id": 1, "user": user, "result": stored, "updated_at": updated_at, "annotation": None}
