"""The methods of `job_queue.queue.JobQueue` that the backend uses. Tests pass a fake instead."""

from __future__ import annotations

from typing import Protocol

from job_queue.contracts import CollectJob, DescribeAnswer, FieldAnswer, FineTuneJob, ReconcileJob, SegmentAnswer
from job_queue.job_kinds import AnyJob
from job_queue.queue import QueueHealth


class ClickQueue(Protocol):
    """The methods that a click uses; `job_queue.queue.JobQueue` documents what each one raises."""

    def submit(self, job: AnyJob, *, bulk: bool = False) -> str: ...

    def wait_segment(self, job_id: str, timeout_s: float) -> SegmentAnswer: ...

    def wait_describe(self, job_id: str, timeout_s: float) -> DescribeAnswer: ...

    def partial_describe(self, job_id: str) -> tuple[FieldAnswer, ...]: ...

    def health(self) -> QueueHealth: ...

    def record_failure(self, message: str, *, task_id: int | None = None, where: str = "backend") -> None: ...


class HintQueue(Protocol):
    """The method that a webhook uses."""

    def submit(self, job: CollectJob | ReconcileJob | FineTuneJob) -> str: ...
