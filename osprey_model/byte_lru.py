"""A cache with a limit in bytes: the least recently used entries are removed first. It counts hits and misses."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar


@dataclass(frozen=True, slots=True)
class CacheStats:
    """Counts since the cache was created, and its current contents."""

    hits: int
    misses: int
    evictions: int
    entries: int
    num_bytes: int
    limit_bytes: int


class Sized(Protocol):
    """An object that reports its memory. The number must not change while the object is in a cache."""

    @property
    def num_bytes(self) -> int:
        """Memory in bytes."""


Entry = TypeVar("Entry", bound=Sized)


class ByteLru(Generic[Entry]):
    """Entries by key, up to `limit_bytes` in total. The newest entry always stays, even if it alone is larger."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.num_bytes = 0  # memory of all entries
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self._hits = self._misses = self._evictions = 0

    def get(self, key: str) -> Entry | None:
        """Return the entry of `key` and mark it as the most recently used; None if there is none."""
        if key not in self._entries:
            self._misses += 1
            return None
        self._hits += 1
        self._entries.move_to_end(key)
        return self._entries[key]

    def put(self, key: str, entry: Entry) -> None:
        """Add an entry, replace the one of the same key, and remove old entries until the limit is kept."""
        replaced = self._entries.pop(key, None)
        if replaced is not None:
            self.num_bytes -= replaced.num_bytes
        self._entries[key] = entry
        self.num_bytes += entry.num_bytes
        while len(self._entries) > 1 and self.num_bytes > self.limit_bytes:
            _, oldest = self._entries.popitem(last=False)
            self.num_bytes -= oldest.num_bytes
            self._evictions += 1

    def stats(self) -> CacheStats:
        """Return the counts so far. Every `get` counts as one hit or one miss."""
        return CacheStats(
            self._hits, self._misses, self._evictions, len(self._entries), self.num_bytes, self.limit_bytes
        )

    def __len__(self) -> int:
        return len(self._entries)
