"""The byte ranges of the entries in a large JSON file, so that entries can be read one by one.

The paper's annotation files have up to hundreds of megabytes. Only byte ranges stay in memory; an entry is parsed when
it is needed.
"""

from __future__ import annotations

import mmap
import re
from array import array
from pathlib import Path

_TOKENS = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)
_OPENING, _CLOSING = b"[{", b"]}"


class BadFile(ValueError):
    """An annotation file does not have the format of its `type`: it is broken JSON, or lists are missing."""


class ByteRanges:
    """Start and end of each entry in one file; 16 bytes of memory per entry."""

    def __init__(self, path: Path) -> None:
        """Create it without entries."""
        self.path = path
        self._bounds = array("q")

    def __len__(self) -> int:
        """Return the number of entries."""
        return len(self._bounds) // 2

    def append(self, start: int, end: int) -> None:
        """Add the entry of bytes start..end (end excluded)."""
        self._bounds.extend((start, end))

    def read(self, idx: int) -> bytes:
        """Read the bytes of entry `idx`. Every call opens the file, so that loader processes share no file handle."""
        start, end = self._bounds[2 * idx : 2 * idx + 2]
        with self.path.open("rb") as file:
            file.seek(start)
            return file.read(end - start)


def index_lines(path: Path) -> ByteRanges:
    """Index a file with one entry per line; blank lines are left out."""
    ranges = ByteRanges(path)
    start = 0
    with path.open("rb") as file:
        for line in file:
            if line.strip():
                ranges.append(start, start + len(line))
            start += len(line)
    return ranges


def index_arrays(path: Path) -> dict[str, ByteRanges]:
    """Index the entries of every list of objects at the top level of a JSON file.

    Returns:
        The lists of a top-level object by key; for a file that is itself a list, the key is "".

    Raises:
        BadFile: the file is empty or truncated, brackets do not match, or a list contains something else than objects.
    """
    if not path.stat().st_size:
        raise BadFile(f"{path} is empty; expected JSON")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        return _Scan(path, text).arrays()


class _Scan:
    """One pass over the brackets and strings of a file. Everything between them is only compared with commas."""

    def __init__(self, path: Path, text: mmap.mmap) -> None:
        self.path, self.text = path, text
        self.found: dict[str, ByteRanges] = {}

    def arrays(self) -> dict[str, ByteRanges]:
        stack = bytearray()  # the open brackets
        key, entry_start, gap_start = "", 0, 0
        for match in _TOKENS.finditer(self.text):
            token, at = match[0], match.start()
            # A string: at the top level it may be the key of the next list.
            if token[:1] == b'"':
                if stack == b"{":
                    key = token[1:-1].decode("utf-8", errors="replace")
                continue
            # An opening bracket: it begins an entry of a list, or a list, or lies inside an entry.
            if token in _OPENING:
                if self._is_list(stack):
                    self._check_gap(gap_start, at, first=not self.found[key])
                    entry_start = at
                stack += token
                if self._is_list(stack):
                    self.found[key] = ByteRanges(self.path)
                    gap_start = match.end()
                continue
            # A closing bracket: it ends a list, or an entry of a list, or lies inside an entry.
            if not stack or _CLOSING[_OPENING.index(stack[-1])] != token[0]:
                raise BadFile(f"{self.path}: a bracket closes at byte {at} that was not opened; the JSON is broken")
            closes_list = self._is_list(stack)
            del stack[-1]
            if closes_list and self.text[gap_start:at].strip():
                self._refuse_gap(gap_start, at)
            elif self._is_list(stack):
                self.found[key].append(entry_start, match.end())
                gap_start = match.end()
        if stack:
            raise BadFile(f"{self.path}: {len(stack)} brackets are open at its end; is the file truncated?")
        return self.found

    @staticmethod
    def _is_list(stack: bytearray) -> bool:
        return bytes(stack) in (b"[", b"{[")

    def _check_gap(self, start: int, end: int, *, first: bool) -> None:
        if self.text[start:end].strip() != (b"" if first else b","):
            self._refuse_gap(start, end)

    def _refuse_gap(self, start: int, end: int) -> None:
        between = self.text[start : min(end, start + 40)].decode("utf-8", errors="replace").strip()
        raise BadFile(f"{self.path}: expected objects separated by commas, got {between!r} at byte {start}")
