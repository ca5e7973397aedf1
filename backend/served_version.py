"""The model version that the workers serve; without a worker, the last one that they served."""

from __future__ import annotations

import logging
import threading
import time

from redis import Redis
from redis.exceptions import RedisError

from backend.ports import ClickQueue

logger = logging.getLogger(__name__)

NEVER_SEEN = "osprey"  # Label Studio needs a name even before the first worker has started
_KEY = "osprey:last-model-version"
_FRESH_S = 2.0


class ServedVersion:
    """Reads the version from the queue's health, at most every two seconds. Safe to share between threads."""

    def __init__(self, queue: ClickQueue, redis: Redis) -> None:
        self._queue = queue
        self._redis = redis
        self._lock = threading.Lock()
        self._known: str | None = None
        self._asked_s = float("-inf")

    def last_known(self) -> str:
        """Return the last known version without asking the queue."""
        return self._known or NEVER_SEEN

    def current(self) -> str:
        """Return the version that is served now, else the last known one. Never raises."""
        with self._lock:
            if time.monotonic() - self._asked_s < _FRESH_S:
                return self.last_known()
            self._asked_s = time.monotonic()
        state = self._queue.health().queues.get("describe")
        served = state.model_versions if state else ()
        try:
            if served and served[-1] != self._known:
                self._known = served[-1]
                self._redis.set(_KEY, served[-1])
            elif self._known is None and (stored := self._redis.get(_KEY)):
                self._known = stored.decode() if isinstance(stored, bytes) else stored
        except RedisError as error:
            logger.warning("the last model version was not stored: %s", error)
        return self.last_known()
