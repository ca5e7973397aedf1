"""Read submitted annotations into regions with mask, texts and provenance; report everything that cannot be used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from job_queue.contracts import Rle
from job_queue.field_answers import WHOLE
from job_queue.mask_codec import encode_mask
from job_queue.records import known_fields
from label_config.geometry import region_mask
from label_config.labels import is_part_label
from label_config.reader import LabelConfig
from learning.submitted import items as reading
from learning.submitted.problems import Problem, ProblemKind

__all__ = ["Problem", "SubmittedRegion", "regions_of"]

_GEOMETRY_VALUES = frozenset({"rle", "imageDataURL", "points", "vertices", "x"})  # each shape has one of these


@dataclass(frozen=True, slots=True)
class SubmittedRegion:
    """One region that an annotator submitted: a line of regions.jsonl.

    Attributes:
        task: number of the task.
        annotation: number of the annotation.
        region: the region's id in Label Studio.
        annotator: number of the annotator.
        image: file name of the image in exports.
        image_wh: size of the image and the mask in pixels.
        mask: the mask as COCO RLE.
        bbox: smallest box around the mask: x, y, width, height in pixels.
        area: pixels of the mask.
        label: the region's label.
        parent: id of the region that this one is a part of.
        is_part: whether it is a part of an object.
        origin: Label Studio's `origin`: manual, prediction or prediction-changed.
        score: Label Studio's score of the mask.
        texts: the final field values by control.
        stored: the raw values where Label Studio stores another form (aliases, paths, ratings).
        suggestion: the model's answers by control; None for a region drawn by hand.
        changed: the controls whose value differs from the suggestion.
        confidence: the model's confidence by control, 0 to 1.
        model_version: the model that made the suggestion.
        segmenter_version: the model that made the mask.
        notes: notes of the annotator.
        lead_time_s: Label Studio's lead time of the whole annotation.
        updated_at: when the annotation was last saved, by Label Studio's clock.
        ground_truth: whether the annotation is marked as ground truth.
    """

    task: int
    annotation: int
    region: str
    annotator: int | None
    image: str
    image_wh: tuple[int, int]
    mask: Rle
    bbox: tuple[int, int, int, int]
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
        """Return the line as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> SubmittedRegion:
        """Read what `to_json` wrote, also in another release: unknown keys are ignored, missing ones take a default."""
        lists = {"image_wh", "bbox", "changed", "notes"}
        values: dict[str, Any] = {key: tuple(value) if key in lists else value for key, value in line.items()}
        return cls(**known_fields(cls, values))


def regions_of(
    config: LabelConfig, task: Mapping[str, Any], annotation: Mapping[str, Any], image: str
) -> tuple[list[SubmittedRegion], list[Problem]]:
    """Read one submitted annotation.

    Args:
        config: the project's present labeling config.
        task: the task, as Label Studio's API returns it.
        annotation: the annotation; its `result` holds the items.
        image: file name of the task's image in exports.

    Returns:
        The regions in stored order, and a problem for everything that is left out or changed.
    """
    task_id, annotation_id = reading.integer(task.get("id")), reading.integer(annotation.get("id"))
    assert task_id is not None
    assert annotation_id is not None
    regions, problems = [], []
    items = annotation.get("result")
    if not isinstance(items, list):
        return [], [Problem(task_id, annotation_id, None, f"expected a list as result, got {type(items).__name__}")]
    by_region: dict[str, list[reading.Item]] = {}
    for idx, item in enumerate(items):
        complaint = _outside_regions(config, item)
        if complaint is None:
            by_region.setdefault(item["id"], []).append(item)
        elif complaint:
            region_id = reading.string(reading.mapping(item).get("id"))
            problems.append(Problem(task_id, annotation_id, region_id, f"item {idx}: {complaint}"))
    for region_id, members in by_region.items():
        ids = (task_id, annotation_id, region_id)
        complain: list[tuple[ProblemKind, str]] = []
        found = _region(config, annotation, image, ids, members, complain)
        problems.extend(Problem(*ids, sentence, kind) for kind, sentence in complain)
        if found is not None:
            regions.append(found)
    return regions, problems


def _outside_regions(config: LabelConfig, item: Any) -> str | None:
    """Return why an item belongs to no region; None if it belongs to one, "" if it is not data at all."""
    if not isinstance(item, Mapping):
        return f"expected an object, got {type(item).__name__}"
    if item.get("from_name") is not None and item.get("from_name") == config.notice:
        return ""  # a notice of the backend to the annotator
    if item.get("type") == "relation":
        return f"it is a relation from {item.get('from_id')!r} to {item.get('to_id')!r}, which is not exported"
    if not isinstance(item.get("id"), str) or not isinstance(item.get("value"), Mapping):
        return "it has no region id or no value"
    if item.get("to_name") != config.image_name:
        return f"it belongs to {item.get('to_name')!r}, not to the image {config.image_name!r}"
    if not _GEOMETRY_VALUES & set(item["value"]):
        return (
            f"{item.get('from_name')!r} has no mask, because it describes the whole image or its region is missing; "
            "it is not exported"
        )
    return None


def _region(
    config: LabelConfig,
    annotation: Mapping[str, Any],
    image: str,
    ids: tuple[int, int, str],
    items: Sequence[reading.Item],
    complain: list[tuple[ProblemKind, str]],
) -> SubmittedRegion | None:
    prompt = config.prompt(str(items[0].get("from_name")))
    if prompt is not None and not prompt.labels:
        complain.append(("mask", f"it is a {prompt.kind} prompt that was not answered before submit"))
        return None
    try:
        mask = region_mask(items[0])
    except ValueError as error:
        complain.append(("mask", f"its mask cannot be read: {error}"))
        return None
    if mask is None or not mask.any():
        reason = f"it is a {items[0].get('type')} and has no area" if mask is None else "its mask covers no pixel"
        complain.append(("mask", reason))
        return None
    texts, stored = reading.answers_of(config, items, complain)
    meta = reading.meta_of(items)
    suggestion = reading.suggestion_of(meta)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, left = int(rows[0]), int(columns[0])
    label = reading.label_of(items)
    parent = next((item["parentID"] for item in items if isinstance(item.get("parentID"), str)), None)
    return SubmittedRegion(
        task=ids[0],
        annotation=ids[1],
        region=ids[2],
        annotator=reading.annotator_of(annotation),
        image=image,
        image_wh=(mask.shape[1], mask.shape[0]),
        mask=encode_mask(mask),
        bbox=(left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1),
        area=int(mask.sum()),
        label=label,
        parent=parent,
        is_part=_is_part(config, label, parent, texts),
        origin=str(items[0].get("origin") or "manual"),
        score=reading.number(items[0].get("score")),
        texts=texts,
        stored=stored,
        suggestion=suggestion,
        changed=_changed(config, texts, suggestion),
        confidence={
            str(name): value
            for name, raw in reading.mapping(meta.get("confidence")).items()
            if (value := reading.number(raw)) is not None
        },
        model_version=reading.string(meta.get("model_version")),
        segmenter_version=reading.string(meta.get("segmenter_version")),
        notes=tuple(reading.strings(reading.mapping(items[0].get("meta")).get("text"))),
        lead_time_s=reading.number(annotation.get("lead_time")),
        updated_at=reading.string(annotation.get("updated_at")),
        ground_truth=annotation.get("ground_truth") is True,
    )


def _is_part(config: LabelConfig, label: str | None, parent: str | None, texts: Mapping[str, list[str]]) -> bool:
    """Return whether the region is a part: by its part field, else by its parent or label."""
    parts = [text for field in config.fields if field.role == "part" for text in texts.get(field.name, [])]
    if parts:
        return parts[0].strip().lower() != WHOLE
    return parent is not None or is_part_label(label)


def _changed(
    config: LabelConfig, texts: Mapping[str, list[str]], suggestion: Mapping[str, list[str]] | None
) -> tuple[str, ...]:
    """Return the fields whose value differs from the suggestion; controls missing in the config do not count."""
    if suggestion is None:
        return ()
    names = sorted(field.name for field in config.fields)
    return tuple(name for name in names if texts.get(name, []) != suggestion.get(name, []))
