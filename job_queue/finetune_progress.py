"""How far the running fine-tune is: one record in Redis, for `osprey status`.

Neighbours: `learning/jobs.py` writes, `cli/worker.py` shows.
"""

from __future__ import annotations

import dataclasses
import json
import time
from dataclasses import dataclass

from redis import Redis

_KEY = "osprey:finetune"
_KEPT_S = 7 * 86_400


@dataclass(frozen=True, slots=True)
class FineTuneProgress:
    """What a fine-tune is doing, or how it ended. `at` is Unix time of the last word."""

    project_id: int
    what: str
    done: int
    total: int
    started_at: float
    at: float
    outcome: str = ""  # empty while it runs

    @property
    def left_s(self) -> float | None:
        """Seconds until `what` is done, if it goes on as since the start of the fine-tune; None: cannot be told."""
        if self.outcome or not 0 < self.done < self.total:
            return None
        return (self.at - self.started_at) / self.done * (self.total - self.done)


class ProgressNote:
    """Writes the progress of one fine-tune, at most twice a second."""

    def __init__(self, redis: Redis, project_id: int) -> None:
        self._redis = redis
        self._project_id = project_id
        self._what, self._started_at, self._written_at = "", time.time(), 0.0

    def step(self, what: str, done: int, total: int) -> None:
        """`done` of `total` of something."""
        now = time.time()
        if what != self._what:
            self._what, self._started_at, self._written_at = what, now, 0.0
        if done < total and now - self._written_at < 0.5:
            return
        self._written_at = now
        self._write(FineTuneProgress(self._project_id, what, done, total, self._started_at, now))

    def end(self, outcome: str) -> None:
        """It is over, well or not."""
        now = time.time()
        self._write(FineTuneProgress(self._project_id, self._what, 0, 0, self._started_at, now, outcome))

    def _write(self, progress: FineTuneProgress) -> None:
        self._redis.set(_KEY, json.dumps(dataclasses.asdict(progress)), ex=_KEPT_S)


def read_progress(redis: Redis) -> FineTuneProgress | None:
    """The last fine-tune's, None where there was none for a week."""
    data = redis.get(_KEY)
    return FineTuneProgress(**json.loads(data)) if isinstance(data, (bytes, str)) else None
