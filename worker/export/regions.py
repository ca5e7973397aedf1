"""Stored annotations -> regions with mask, texts and provenance; what cannot be used is said, never dropped.

Neighbours: `worker/export/annotation_source.py` brings the tasks, `worker/export/osprey_724k.py` makes
conversations of the regions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from label_config.geometry import region_mask
from label_config.reader import Field, LabelConfig
from worker.contracts import Rle
from worker.mask_codec import encode_mask

WHOLE = "whole"
_PART_LABELS = frozenset({"part", "subpart", "sub-part"})
_GEOMETRY_VALUES = frozenset({"rle", "imageDataURL", "points", "vertices", "x"})  # each shape has one of these


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is not in the export, and why."""

    task: int | None
    annotation: int | None
    region: str | None
    problem: str


@dataclass(frozen=True, slots=True)
class ExportedRegion:
    """One region a person submitted: a line of regions.jsonl.

    `texts` holds the final words by control, `stored` what Label Studio holds where that differs (aliases, paths,
    ratings). `suggestion` is what the model said, None for a region drawn by hand. `changed` names the controls
    whose words are not the suggested ones.
    """

    task: int
    annotation: int
    region: str
    annotator: int | None
    image: str
    image_wh: tuple[int, int]
    mask: Rle
    bbox: tuple[int, int, int, int]  # x, y, width, height in pixels
    area: int
    label: str | None
    parent: str | None
    is_part: bool
    origin: str
    score: float | None
    texts: dict[str, list[str]]
    stored: dict[str, Any] = field(default_factory=dict)
    suggestion: dict[str, list[str]] | None = None
    changed: tuple[str, ...] = ()
    confidence: dict[str, float] = field(default_factory=dict)
    model_version: str | None = None
    segmenter_version: str | None = None
    notes: tuple[str, ...] = ()
    lead_time_s: float | None = None
    updated_at: str | None = None
    ground_truth: bool = False

    def to_json(self) -> dict[str, Any]:
        """The line as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> ExportedRegion:
        """What `to_json` wrote."""
        lists = {"image_wh", "bbox", "changed", "notes"}
        values: dict[str, Any] = {key: tuple(value) if key in lists else value for key, value in line.items()}
        return cls(**values)


def regions_of(
    config: LabelConfig, task: Mapping[str, Any], annotation: Mapping[str, Any], image: str
) -> tuple[list[ExportedRegion], list[Problem]]:
    """The regions of one submitted annotation in stored order, and what is wrong with the others.

    `image` is the file name under which the export knows the task's image.
    """
    task_id, annotation_id = _integer(task.get("id")), _integer(annotation.get("id"))
    assert task_id is not None
    assert annotation_id is not None
    regions, problems = [], []
    items = annotation.get("result")
    if not isinstance(items, list):
        return [], [Problem(task_id, annotation_id, None, f"the result is no list but {type(items).__name__}")]
    by_region: dict[str, list[Mapping[str, Any]]] = {}
    for idx, item in enumerate(items):
        complaint = _outside_regions(config, item)
        if complaint is None:
            by_region.setdefault(item["id"], []).append(item)
        elif complaint:
            problems.append(Problem(task_id, annotation_id, None, f"item {idx}: {complaint}"))
    for region_id, members in by_region.items():
        found, complaints = _region(config, annotation, image, (task_id, annotation_id, region_id), members)
        problems.extend(Problem(task_id, annotation_id, region_id, complaint) for complaint in complaints)
        if found is not None:
            regions.append(found)
    return regions, problems


def _outside_regions(config: LabelConfig, item: Any) -> str | None:
    """Why an item belongs to no region; "" for what is no data by design, None when it does belong to one."""
    if not isinstance(item, Mapping):
        return f"expected an object, got {type(item).__name__}"
    if item.get("from_name") is not None and item.get("from_name") == config.notice:
        return ""  # a message of ours to the annotator
    if item.get("type") == "relation":
        return f"a relation from {item.get('from_id')!r} to {item.get('to_id')!r} is not exported"
    if not isinstance(item.get("id"), str) or not isinstance(item.get("value"), Mapping):
        return "it has no region id or no value"
    if item.get("to_name") != config.image_name:
        return f"it belongs to {item.get('to_name')!r}, not to the image {config.image_name!r}"
    if not _GEOMETRY_VALUES & set(item["value"]):
        return f"{item.get('from_name')!r} belongs to the whole image, not to a region, and is not exported"
    return None


def _region(
    config: LabelConfig,
    annotation: Mapping[str, Any],
    image: str,
    ids: tuple[int, int, str],
    items: Sequence[Mapping[str, Any]],
) -> tuple[ExportedRegion | None, list[str]]:
    prompt = config.prompt(str(items[0].get("from_name")))
    if prompt is not None and not prompt.labels:
        return None, [f"it is a {prompt.kind} prompt that was still pending at submit, no annotation"]
    try:
        mask = region_mask(items[0])
    except ValueError as error:
        return None, [f"its mask cannot be read: {error}"]
    if mask is None:
        return None, [f"it is a {items[0].get('type')} and has no area"]
    if not mask.any():
        return None, ["its mask covers no pixel"]
    complaints: list[str] = []
    texts, stored = _answers(config, items, complaints)
    meta = _meta(items)
    suggestion = _suggestion(meta)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, left = int(rows[0]), int(columns[0])
    label = _label(items)
    parent = next((item["parentID"] for item in items if isinstance(item.get("parentID"), str)), None)
    region = ExportedRegion(
        task=ids[0],
        annotation=ids[1],
        region=ids[2],
        annotator=_annotator(annotation),
        image=image,
        image_wh=(mask.shape[1], mask.shape[0]),
        mask=encode_mask(mask),
        bbox=(left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1),
        area=int(mask.sum()),
        label=label,
        parent=parent,
        is_part=_is_part(config, label, parent, texts),
        origin=str(items[0].get("origin") or "manual"),
        score=_number(items[0].get("score")),
        texts=texts,
        stored=stored,
        suggestion=suggestion,
        changed=_changed(texts, suggestion),
        confidence={
            str(name): value
            for name, raw in _mapping(meta.get("confidence")).items()
            if (value := _number(raw)) is not None
        },
        model_version=_string(meta.get("model_version")),
        segmenter_version=_string(meta.get("segmenter_version")),
        notes=tuple(_strings(_mapping(items[0].get("meta")).get("text"))),
        lead_time_s=_number(annotation.get("lead_time")),
        updated_at=_string(annotation.get("updated_at")),
        ground_truth=annotation.get("ground_truth") is True,
    )
    return region, complaints


def _answers(
    config: LabelConfig, items: Iterable[Mapping[str, Any]], complaints: list[str]
) -> tuple[dict[str, list[str]], dict[str, Any]]:
    """The words of each filled control, and the raw values where Label Studio holds something else."""
    texts: dict[str, list[str]] = {}
    stored: dict[str, Any] = {}
    for item in items:
        name, value = str(item.get("from_name")), item["value"]
        raw = value.get("text" if item.get("type") == "textarea" else item.get("type"))
        field = config.field(name)
        if field is None:
            if not str(item.get("type")).startswith(("bitmask", "brush", "polygon", "vector", "rectangle", "ellipse")):
                stored[name] = raw  # a rating, a number: no words, but somebody's work
            continue
        words = _words(field, raw, complaints)
        texts.setdefault(name, []).extend(word for word in words if word.strip())
        if field.tag != "TextArea":
            stored[name] = raw
    return {name: words for name, words in texts.items() if words}, stored


def _words(field: Field, raw: Any, complaints: list[str]) -> list[str]:
    """What a control's raw value says, in the words the model may say."""
    if isinstance(raw, str):
        raw = [raw]
    if not isinstance(raw, list):
        complaints.append(
            f"{field.name!r} holds {type(raw).__name__} where a list was expected; its words are not exported"
        )
        return []
    if field.tag == "TextArea":
        if not all(isinstance(text, str) for text in raw):
            complaints.append(f"{field.name!r} holds something else than texts; only its texts are exported")
        return _strings(raw)
    by_path = {choice.path: choice.text for choice in field.choices}
    words = []
    for chosen in raw:
        path = tuple(str(part) for part in chosen) if isinstance(chosen, list) else (str(chosen),)
        if path not in by_path:
            complaints.append(
                f"{field.name!r} holds {' > '.join(path)!r}, which the config no longer lists; exported as it is"
            )
        words.append(by_path.get(path) or path[-1] if path else "")
    return words


def _label(items: Sequence[Mapping[str, Any]]) -> str | None:
    for item in items:
        labels = item["value"].get(str(item.get("type")))
        if str(item.get("type")).endswith("labels") and _strings(labels):
            return _strings(labels)[0]
    return None


def _is_part(config: LabelConfig, label: str | None, parent: str | None, texts: Mapping[str, list[str]]) -> bool:
    part_words = [word for field in config.fields if field.role == "part" for word in texts.get(field.name, [])]
    if part_words:
        return part_words[0].strip().lower() != WHOLE
    return parent is not None or (label or "").strip().lower() in _PART_LABELS


def _meta(items: Iterable[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Our part of the region's meta. Label Studio writes the region's meta to each of its items."""
    for item in items:
        ours = _mapping(item.get("meta")).get("osprey")
        if isinstance(ours, Mapping):
            return ours
    return {}


def _suggestion(meta: Mapping[str, Any]) -> dict[str, list[str]] | None:
    suggestion = meta.get("suggestion")
    if not isinstance(suggestion, Mapping):
        return None
    return {str(name): [words] if isinstance(words, str) else _strings(words) for name, words in suggestion.items()}


def _changed(texts: Mapping[str, list[str]], suggestion: Mapping[str, list[str]] | None) -> tuple[str, ...]:
    if suggestion is None:
        return ()
    names = sorted({*texts, *suggestion})
    return tuple(name for name in names if texts.get(name, []) != suggestion.get(name, []))


def _annotator(annotation: Mapping[str, Any]) -> int | None:
    """The annotator's number; the e-mail address stays in Label Studio."""
    completed_by = annotation.get("completed_by")
    return _integer(completed_by.get("id") if isinstance(completed_by, Mapping) else completed_by)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _strings(value: Any) -> list[str]:
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else []


def _string(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _integer(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _number(value: Any) -> float | None:
    """A finite number, or None: NaN is no JSON."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not np.isfinite(value):
        return None
    return float(value)
