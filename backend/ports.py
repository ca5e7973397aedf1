"""The methods of `worker.queue.JobQueue` that the backend uses. Tests pass a fake instead."""

from __future__ import annotations

from typing import Protocol

from worker.contracts import CollectJob, DescribeAnswer, FieldAnswer, FineTuneJob, ReconcileJob, SegmentAnswer
from worker.queue import AnyJob, QueueHealth


class ClickQueue(Protocol):
    """The methods that a click uses; `worker.queue.JobQueue` documents what each one raises."""

    def submit(self, job: AnyJob, *, bulk: bool = False) -> str: ...

    def wait_segment(self, job_id: str, timeout_s: float) -> SegmentAnswer: ...

    def wait_describe(self, job_id: str, timeout_s: float) -> DescribeAnswer: ...

    def partial_describe(self, job_id: str) -> tuple[FieldAnswer, ...]: ...

    def health(self) -> QueueHealth: ...

    def record_failure(self, message: str, *, task_id: int | None = None, where: str = "backend") -> None: ...


class HintQueue(Protocol):
    """The method that a webhook uses."""

    def submit_data(self, job: CollectJob | ReconcileJob | FineTuneJob) -> str: ...
