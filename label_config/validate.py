"""Check result items against the config, and find those that would blank or break the annotator's page.

Label Studio checks nothing: an item of the wrong type or shape makes the whole editor go blank, and an unknown name is
dropped silently. The backend therefore sends no items for which this file reports a problem.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeGuard

from label_config.geometry.region_mask import region_mask
from label_config.schema import Field, LabelConfig

_GEOMETRY_KEYS = {"brush": "rle", "bitmask": "imageDataURL", "polygon": "points"}
_ORIGINS = ("manual", "prediction", "prediction-changed")


def validate_results(config: LabelConfig, items: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return one sentence per problem; without problems the items are safe to send.

    A region consists of all items of one `id`: first its geometry, then its fields, each control once.
    """
    problems: list[str] = []
    label_of: dict[str, str | None] = {}  # of the regions whose geometry has been seen
    seen: set[tuple[str, str]] = set()
    for idx, item in enumerate(items):
        if not isinstance(item, Mapping):
            problems.append(f"item {idx}: expected an object, got {type(item).__name__}")
            continue
        where = f"item {idx} (region {item.get('id')!r}, {item.get('from_name')!r})"
        found = [*_envelope(config, item), *_content(config, item, label_of)]
        key = (str(item.get("id")), str(item.get("from_name")))
        if key in seen:
            found.append("this control has already been answered for this region; send it once")
        seen.add(key)
        problems.extend(f"{where}: {problem}" for problem in found)
    return problems


def _envelope(config: LabelConfig, item: Mapping[str, Any]) -> Iterable[str]:
    """Check the keys that every item needs, whatever its control."""
    region_id = item.get("id")
    if not isinstance(region_id, str) or not region_id:
        yield f"expected an id, a non-empty string, got {region_id!r}"
    if item.get("to_name") != config.image_name:
        yield f"expected to_name {config.image_name!r}, got {item.get('to_name')!r}; the page would drop it"
    if not isinstance(item.get("value"), Mapping):
        yield f"expected a value, an object, got {item.get('value')!r:.60}"
    if item.get("origin", "prediction") not in _ORIGINS:
        yield f"expected an origin of {', '.join(_ORIGINS)}, got {item['origin']!r}"
    score = item.get("score", 0.0)
    if not isinstance(score, (int, float)) or not math.isfinite(score):
        yield f"expected a score that is a finite number, got {score!r}"
    if "parentID" in item and (not isinstance(item["parentID"], str) or item["parentID"] == region_id):
        yield f"expected parentID to name another region, got {item['parentID']!r}"
    if "meta" in item:
        yield from _meta(item["meta"])


def _meta(meta: Any) -> Iterable[str]:
    if not isinstance(meta, Mapping):
        yield f"expected meta to be an object, got {meta!r:.60}"
        return
    if "text" in meta and not _is_text_list(meta["text"]):
        yield f"expected meta.text to be a list of strings, got {meta['text']!r:.60}"
    try:
        json.dumps(meta, allow_nan=False)
    except (TypeError, ValueError) as error:
        yield f"meta is not JSON: {error}"


def _content(config: LabelConfig, item: Mapping[str, Any], label_of: dict[str, str | None]) -> Iterable[str]:
    """Check the item's value against its control. Record the region's label if the item is its geometry."""
    name, region_id = item.get("from_name"), str(item.get("id"))
    value = item["value"] if isinstance(item.get("value"), Mapping) else {}
    if name == config.output.name:
        label_of[region_id] = next(iter(_labels(config, value)), None)
        yield from _geometry(config, item, value)
    elif name is not None and name == config.notice:
        yield from _typed(item, "textarea")
        if not _is_text_list(value.get("text")):
            yield f"expected value.text to be a list of strings, got {value.get('text')!r:.60}"
    elif isinstance(name, str) and (field := config.field(name)) is not None:
        if region_id not in label_of:
            yield "the region's geometry must come before its fields; a text alone destroys the region"
        elif not field.applies_to(label_of[region_id]):
            yield f"the control is hidden for label {label_of[region_id]!r}; it is shown for {field.when_labels}"
        yield from _typed(item, field.result_type)
        yield from _VALUES[field.tag](field, value)
    else:
        yield f"the config has no control {name!r} to be filled; the page would drop the item"


def _typed(item: Mapping[str, Any], expected: str) -> Iterable[str]:
    if item.get("type") != expected:
        yield f"expected type {expected!r} for this control, got {item.get('type')!r}; the editor would go blank"


def _labels(config: LabelConfig, value: Mapping[str, Any]) -> list[str]:
    labels = value.get(config.output.result_type, [])
    return labels if _is_text_list(labels) else []


def _geometry(config: LabelConfig, item: Mapping[str, Any], value: Mapping[str, Any]) -> Iterable[str]:
    output = config.output
    yield from _typed(item, output.result_type)
    labels = _labels(config, value)
    if output.labels and len(labels) != 1:
        yield f"expected one label in value.{output.result_type}, got {value.get(output.result_type)!r:.60}"
    for label in labels:
        if label not in output.labels:
            yield f"label {label!r} is none of {output.labels}; it could not be selected in the page"
    if item.get("image_rotation", 0) != 0:
        yield f"expected image_rotation 0 (masks are in the frame of the stored image), got {item['image_rotation']!r}"
    key = _GEOMETRY_KEYS[output.kind]
    if key not in value:
        yield f"expected value.{key} with the mask, got only {sorted(value)}"
        return
    if output.kind == "brush" and value.get("format") != "rle":
        yield f"expected value.format 'rle', got {value.get('format')!r}"
    if output.kind == "polygon":
        yield from _percentages(value["points"])
    try:
        mask = region_mask(item)
    except ValueError as error:
        yield str(error)
        return
    if mask is None or not mask.any():
        yield "the mask covers no pixel; the page would create an invisible region"


def _percentages(points: Any) -> Iterable[str]:
    if not isinstance(points, Sequence) or not all(
        isinstance(point, Sequence)
        and len(point) == 2
        and all(isinstance(pct, (int, float)) and 0 <= pct <= 100 for pct in point)
        for point in points
    ):
        yield f"expected points [x, y] in percent from 0 to 100, got {points!r:.80}"


def _text(field: Field, value: Mapping[str, Any]) -> Iterable[str]:
    texts = value.get("text")
    if not _is_text_list(texts):
        yield f"expected value.text to be a list of strings, got {texts!r:.60}; the editor would go blank"
        return
    yield from _count(field, texts)


def _choices(field: Field, value: Mapping[str, Any]) -> Iterable[str]:
    chosen = value.get("choices")
    if not _is_text_list(chosen):
        yield f"expected value.choices to be a list of strings, got {chosen!r:.60}"
        return
    yield from _count(field, chosen)
    listed = {choice.value for choice in field.choices}
    for choice in chosen:
        if choice not in listed:
            yield f"{choice!r} is none of the listed choices {sorted(listed)!r:.200}"


def _taxonomy(field: Field, value: Mapping[str, Any]) -> Iterable[str]:
    paths = value.get("taxonomy")
    if not isinstance(paths, list) or not all(_is_text_list(path) and path for path in paths):
        yield f'expected value.taxonomy to be a list of paths such as [["Vehicle", "Car"]], got {paths!r:.60}'
        return
    yield from _count(field, paths)
    listed = {choice.path for choice in field.choices}
    for path in paths:
        if tuple(path) not in listed:
            yield f"{' > '.join(path)!r} is none of the listed paths"


def _count(field: Field, values: Sequence[Any]) -> Iterable[str]:
    most = field.max_values if field.multiple else 1
    if most is not None and len(values) > most:
        yield f"the control holds at most {most} of the {len(values)} values"


def _is_text_list(value: Any) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


_VALUES: dict[str, Callable[[Field, Mapping[str, Any]], Iterable[str]]] = {
    "TextArea": _text,
    "Choices": _choices,
    "Taxonomy": _taxonomy,
}
