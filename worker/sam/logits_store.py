"""SAM's low-resolution logits by id, so that a further click can refine the mask of the click before.

They are kept in the memory of the worker that computed them, and as float16 in Redis for all others.
"""

from __future__ import annotations

import hashlib
import io
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from redis import Redis

_IN_MEMORY = 256
_TTL_S = 3600

Logits = NDArray[np.float32]


class LogitsStore:
    """Arrays of shape (h, w) under the hash of their content."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._memory: OrderedDict[str, Logits] = OrderedDict()

    def put_all(self, arrays: Sequence[NDArray[np.floating[Any]]]) -> list[str]:
        """Store the arrays in one round trip and return an id for each.

        They are rounded to float16 in memory too, so that all workers refine from the same numbers.
        """
        ids = []
        pipeline = self._redis.pipeline(transaction=False)
        for array in arrays:
            halves = array.astype(np.float16)
            buffer = io.BytesIO()
            np.save(buffer, halves, allow_pickle=False)
            logits_id = hashlib.sha256(buffer.getvalue()).hexdigest()[:32]
            pipeline.set(_key(logits_id), buffer.getvalue(), ex=_TTL_S)
            self._remember(logits_id, halves.astype(np.float32))
            ids.append(logits_id)
        pipeline.execute()
        return ids

    def get(self, logits_id: str) -> Logits | None:
        """Return the array, or None when it has expired."""
        if logits_id in self._memory:
            self._memory.move_to_end(logits_id)
            return self._memory[logits_id]
        data = self._redis.get(_key(logits_id))
        if not isinstance(data, bytes):
            return None
        logits: Logits = np.load(io.BytesIO(data), allow_pickle=False).astype(np.float32)
        self._remember(logits_id, logits)
        return logits

    def _remember(self, logits_id: str, logits: Logits) -> None:
        self._memory[logits_id] = logits
        self._memory.move_to_end(logits_id)
        while len(self._memory) > _IN_MEMORY:
            self._memory.popitem(last=False)


def _key(logits_id: str) -> str:
    return f"osprey:logits:{logits_id}"
