"""The files of each layout (Osprey-724K, COCO, Parquet) as bytes. Each file has one side of the split."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from learning.export.categories import vocabulary_of
from learning.export.click_questions import CLICK_TYPES, click_entries
from learning.export.coco import coco_file
from learning.export.counts import Content
from learning.export.osprey_724k import TYPES, Entry, Teaching, entries_of
from learning.export.parquet import parquet_bytes
from learning.export.splits import SIDES, Side

Format = Literal["osprey-724k", "coco", "parquet"]
# Data configs, as `osprey_model.data.mixture.read_data_config` and the released trainer read them: the questions of a
# click, and the paper's five files. Both have the same answers, so a model is trained on one of them.
DATA_CONFIGS: dict[Side, str] = {"train": "data.json", "held_out": "held_out.json"}
PAPER_CONFIGS: dict[Side, str] = {"train": "data_osprey_724k.json", "held_out": "held_out_osprey_724k.json"}


def layout_files(layout: Format, content: Content, teaching: Teaching, image_folder: Path | None) -> dict[str, bytes]:
    """Return the files of a layout by path in the version; `image_folder` None: the export has no images."""
    return FORMATS[layout](content, teaching, image_folder)


def encoded(text: str) -> bytes:
    """Encode as UTF-8; a lone surrogate, which a browser can send, becomes an escape that is valid in JSON."""
    return text.encode("utf-8", "backslashreplace")


def canonical_json(value: Any) -> str:
    """Return the value as one line of JSON that is always the same for equal values."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True, allow_nan=False)


def _osprey_724k(content: Content, teaching: Teaching, image_folder: Path | None) -> dict[str, bytes]:
    vocabulary = vocabulary_of(content.config, content.taught)
    files: dict[str, bytes] = {}
    for side in SIDES:
        entries: dict[str, list[Entry]] = {name: [] for name in (*TYPES, *CLICK_TYPES)}
        for regions in content.annotations_on(side):
            for found in (
                entries_of(content.config, regions, vocabulary, teaching),
                click_entries(content.config, regions, teaching),
            ):
                for name, more in found.items():
                    entries[name] += more
        filled = {name: found for name, found in entries.items() if found}
        for name, found_in_all in filled.items():
            files[f"{side}/{name}"] = encoded("[\n" + ",\n".join(map(canonical_json, found_in_all)) + "\n]\n")
        if image_folder is not None:
            for config, types in ((DATA_CONFIGS[side], CLICK_TYPES), (PAPER_CONFIGS[side], TYPES)):
                files[config] = _data_config(side, {n: types[n] for n in types if n in filled}, image_folder.name)
    return files


def _data_config(side: Side, types: Mapping[str, str], images: str) -> bytes:
    rows = [{"type": kind, "ann_file": f"{side}/{name}", "img_prefix": images} for name, kind in types.items()]
    return encoded(json.dumps(rows, indent=2) + "\n")


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
