"""The files of each layout: Osprey-724K, COCO, Parquet; one side per file.

Neighbours: `worker/export/version.py` writes them, `osprey_724k.py`, `coco.py` and `parquet.py` make them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from worker.export.categories import vocabulary_of
from worker.export.coco import coco_file
from worker.export.figures import Content
from worker.export.osprey_724k import FILES, TYPES, Entry, Teaching, entries_of
from worker.export.parquet import parquet_bytes
from worker.export.splits import SIDES, Side

Format = Literal["osprey-724k", "coco", "parquet"]
# The data config of each side, as `osprey_model.data.mixture.read_data_config` and the released trainer read it.
DATA_CONFIGS: dict[Side, str] = {"train": "data.json", "held_out": "held_out.json"}


def layout_files(layout: Format, content: Content, teaching: Teaching, image_folder: Path | None) -> dict[str, bytes]:
    """Bytes of the layout's files by their path in the version; `image_folder` None: there are no images."""
    return FORMATS[layout](content, teaching, image_folder)


def encoded(text: str) -> bytes:
    """UTF-8; a lone surrogate, which a browser can send and UTF-8 has not, as an escape that is valid in JSON."""
    return text.encode("utf-8", "backslashreplace")


def canonical_json(value: Any) -> str:
    """One line that is the same for the same value."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True, allow_nan=False)


def _osprey_724k(content: Content, teaching: Teaching, image_folder: Path | None) -> dict[str, bytes]:
    vocabulary = vocabulary_of(content.config, content.taught)
    files: dict[str, bytes] = {}
    for side in SIDES:
        entries: dict[str, list[Entry]] = {name: [] for name in FILES}
        for regions in content.annotations_on(side):
            for name, found in entries_of(content.config, regions, vocabulary, teaching).items():
                entries[name] += found
        filled = {name: found for name, found in entries.items() if found}
        for name, found in filled.items():
            files[f"{side}/{name}"] = encoded("[\n" + ",\n".join(map(canonical_json, found)) + "\n]\n")
        if image_folder is not None:
            rows = [
                {"type": TYPES[name], "ann_file": f"{side}/{name}", "img_prefix": image_folder.name} for name in filled
            ]
            files[DATA_CONFIGS[side]] = encoded(json.dumps(rows, indent=2) + "\n")
    return files


def _coco(content: Content, _teaching: Teaching, _image_folder: Path | None) -> dict[str, bytes]:
    return {f"{side}.json": encoded(canonical_json(coco_file(content, side)) + "\n") for side in SIDES}


def _parquet(content: Content, _teaching: Teaching, image_folder: Path | None) -> dict[str, bytes]:
    return {
        f"data/{side}-00000-of-00001.parquet": parquet_bytes(content, side, image_folder)
        for side in SIDES
        if content.taught_on(side)
    }


FORMATS: dict[Format, Callable[[Content, Teaching, Path | None], dict[str, bytes]]] = {
    "osprey-724k": _osprey_724k,
    "coco": _coco,
    "parquet": _parquet,
}
