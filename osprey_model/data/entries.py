"""Annotation files (JSON list, JSON lines, COCO format) as sequences of entries, which are parsed one by one."""

from __future__ import annotations

import json
from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from osprey_model.data.json_index import BadFile, ByteRanges, index_arrays, index_lines


class Entries(Protocol):
    """The entries of one annotation file."""

    @property
    def problems(self) -> Mapping[str, str]:
        """Problems that belong to no entry: name for messages -> reason."""

    def __len__(self) -> int:
        """Return the number of entries in the file, bad ones included."""

    def load(self, idx: int) -> dict[str, Any]:
        """Parse entry `idx`; raises ValueError or TypeError if it is not a JSON object."""


def _parse(text: bytes) -> dict[str, Any]:
    entry = json.loads(text)
    if not isinstance(entry, dict):
        raise TypeError(f"expected an object, got a {type(entry).__name__}")
    return entry


class RangeEntries:
    """Entries that are independent of each other."""

    def __init__(self, ranges: ByteRanges) -> None:
        """Store where the entries lie."""
        self._ranges = ranges
        self.problems: dict[str, str] = {}

    def __len__(self) -> int:
        """Return the number of entries."""
        return len(self._ranges)

    def load(self, idx: int) -> dict[str, Any]:
        """Parse one entry."""
        return _parse(self._ranges.read(idx))


def open_list(path: Path) -> RangeEntries:
    """Open a file that is one JSON list.

    Raises:
        BadFile: the file is something else.
    """
    arrays = index_arrays(path)
    if set(arrays) != {""}:
        raise BadFile(f"{path}: expected one JSON list, got the keys {sorted(arrays)}")
    return RangeEntries(arrays[""])


def open_lines(path: Path) -> RangeEntries:
    """Open a file with one JSON object per line."""
    return RangeEntries(index_lines(path))


class CocoEntries:
    """A COCO-format file. Entry k is image k, with `annotations` (a list) and `categories` (id -> name) added."""

    def __init__(self, path: Path) -> None:
        """Index images and annotations; an annotation without a known image is added to `problems`.

        Raises:
            BadFile: `images`, `annotations` or `categories` is missing or cannot be read.
        """
        arrays = index_arrays(path)
        missing = {"images", "annotations", "categories"} - set(arrays)
        if missing:
            raise BadFile(f"{path}: not in COCO format, the lists {sorted(missing)} are missing")
        self._images, self._annotations = arrays["images"], arrays["annotations"]
        self.problems: dict[str, str] = {}
        categories = [json.loads(arrays["categories"].read(idx)) for idx in range(len(arrays["categories"]))]
        try:
            self._names = {category["id"]: category["name"] for category in categories}
        except (KeyError, TypeError) as problem:
            raise BadFile(f"{path}: every category needs id and name ({problem!r})") from problem
        self._of_image: dict[Any, array[int]] = {}
        for idx in range(len(self._images)):
            try:
                self._of_image[_parse(self._images.read(idx))["id"]] = array("q")
            except (KeyError, TypeError, ValueError):
                continue  # reported when the entry is read
        for idx in range(len(self._annotations)):
            self._place(idx)

    def _place(self, idx: int) -> None:
        try:
            image_id = _parse(self._annotations.read(idx))["image_id"]
            self._of_image[image_id].append(idx)
        except KeyError as problem:
            self.problems[f"annotation {idx}"] = f"it has no image_id, or that of no image ({problem})"
        except (TypeError, ValueError) as problem:
            self.problems[f"annotation {idx}"] = str(problem)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._images)

    def load(self, idx: int) -> dict[str, Any]:
        """Parse one image entry with its annotations, in the file's order."""
        image = _parse(self._images.read(idx))
        annotations = [_parse(self._annotations.read(at)) for at in self._of_image[image["id"]]]
        return {**image, "annotations": annotations, "categories": self._names}
