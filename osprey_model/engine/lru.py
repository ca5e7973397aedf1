"""A byte-bounded LRU that counts: the image prefixes of `engine.py` live here."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar


@dataclass(frozen=True, slots=True)
class CacheStats:
    """How a cache did since it was made, and what it holds now."""

    hits: int
    misses: int
    evictions: int
    entries: int
    num_bytes: int
    limit_bytes: int


class Sized(Protocol):
    """Something that knows its memory."""

    @property
    def num_bytes(self) -> int:
        """Memory in bytes."""


Entry = TypeVar("Entry", bound=Sized)


class ByteLru(Generic[Entry]):
    """Least recently used entries leave when the sum of bytes exceeds the limit; the newest always stays."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self._hits = self._misses = self._evictions = 0

    def get(self, key: str) -> Entry | None:
        """The entry, now the most recently used."""
        if key not in self._entries:
            self._misses += 1
            return None
        self._hits += 1
        self._entries.move_to_end(key)
        return self._entries[key]

    def put(self, key: str, entry: Entry) -> None:
        """Keep an entry, replacing one of the same key."""
        self._entries[key] = entry
        self._entries.move_to_end(key)
        while len(self._entries) > 1 and self.num_bytes > self.limit_bytes:
            self._entries.popitem(last=False)
            self._evictions += 1

    @property
    def num_bytes(self) -> int:
        """Memory of all entries."""
        return sum(entry.num_bytes for entry in self._entries.values())

    def stats(self) -> CacheStats:
        """Counts so far; a `get` is a hit or a miss."""
        return CacheStats(
            self._hits, self._misses, self._evictions, len(self._entries), self.num_bytes, self.limit_bytes
        )

    def __len__(self) -> int:
        return len(self._entries)
