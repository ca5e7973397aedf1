"""The progress of the running fine-tune: one record in Redis, which `osprey status` shows."""

from __future__ import annotations

import time
from dataclasses import dataclass

from redis import Redis

from job_queue.records import read_record, write_record

_KEY = "osprey:finetune"
_KEPT_S = 7 * 86_400


@dataclass(frozen=True, slots=True)
class FineTuneProgress:
    """The step of a fine-tune, or how it ended. `at` is the Unix time of the last change."""

    project_id: int
    what: str = ""
    done: int = 0
    total: int = 0
    started_at: float = 0.0
    at: float = 0.0
    outcome: str = ""  # empty while it runs

    @property
    def left_s(self) -> float | None:
        """Seconds until `what` is done at the speed so far; None: not known."""
        if self.outcome or not 0 < self.done < self.total:
            return None
        return (self.at - self.started_at) / self.done * (self.total - self.done)


class ProgressNote:
    """Write the progress of one fine-tune, at most twice a second."""

    def __init__(self, redis: Redis, project_id: int) -> None:
        self._redis = redis
        self._project_id = project_id
        self._what, self._started_at, self._written_at = "", time.time(), 0.0

    def step(self, what: str, done: int, total: int) -> None:
        """Record that `done` of `total` parts of a step are done."""
        now = time.time()
        if what != self._what:
            self._what, self._started_at, self._written_at = what, now, 0.0
        if done < total and now - self._written_at < 0.5:
            return
        self._written_at = now
        self._write(FineTuneProgress(self._project_id, what, done, total, self._started_at, now))

    def end(self, outcome: str) -> None:
        """Record how the fine-tune ended."""
        now = time.time()
        self._write(FineTuneProgress(self._project_id, self._what, 0, 0, self._started_at, now, outcome))

    def _write(self, progress: FineTuneProgress) -> None:
        self._redis.set(_KEY, write_record(progress), ex=_KEPT_S)


def read_progress(redis: Redis) -> FineTuneProgress | None:
    """Read the progress of the last fine-tune; None where there was none for a week."""
    data = redis.get(_KEY)
    return read_record(FineTuneProgress, data) if isinstance(data, (bytes, str)) else None
