"""The progress of a run of the queue `prelabel`: one JSON value in Redis per run, kept for a day."""

from __future__ import annotations

from dataclasses import dataclass

from redis import Redis

from job_queue.records import read_record, write_record
from worker.prelabel.project import Progress, TaskFailure

_TTL_S = 86_400


@dataclass(frozen=True, slots=True)
class RunState:
    """The state that `osprey prelabel --queue` shows. `error` is set when the run ended before its last task."""

    open: int = 0
    annotated: int = 0
    pushed: int = 0
    skipped: int = 0
    regions: int = 0
    failures: tuple[TaskFailure, ...] = ()
    is_ended: bool = False
    error: str | None = None

    def and_then(self, progress: Progress) -> RunState:
        """Return this state with the progress of one more job of the run added."""
        return RunState(
            open=self.open or progress.open,
            annotated=self.annotated + progress.annotated,
            pushed=self.pushed + progress.pushed,
            skipped=self.skipped + progress.skipped,
            regions=self.regions + progress.regions,
            failures=tuple(dict.fromkeys((*self.failures, *progress.failures))),
            is_ended=progress.is_complete,
        )


def run_key(run_id: str) -> str:
    """Return the Redis key of a run."""
    return f"osprey:prelabel:{run_id}"


def write_run(redis: Redis, run_id: str, state: RunState) -> None:
    """Store the state of a run."""
    redis.set(run_key(run_id), write_record(state), ex=_TTL_S)


def read_run(redis: Redis, run_id: str) -> RunState:
    """Read the state of a run; an empty state for one that has not begun."""
    value = redis.get(run_key(run_id))
    state = read_record(RunState, value) if isinstance(value, (bytes, str)) else None
    return state or RunState()
