"""Read the result items of one region: field values, label, annotator and the model's suggestion."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from label_config.reader import Field, LabelConfig
from learning.submitted.problems import ProblemKind

_GEOMETRY_TYPES = ("bitmask", "brush", "polygon", "vector", "rectangle", "ellipse")

Item = Mapping[str, Any]


def answers_of(
    config: LabelConfig, items: Iterable[Item], complain: list[tuple[ProblemKind, str]]
) -> tuple[dict[str, list[str]], dict[str, Any]]:
    """Return the values of each filled control as texts, and the raw values where Label Studio stores another form.

    Args:
        config: the project's present labeling config.
        items: all items of one region.
        complain: receives (kind, sentence) for each value that is left out or changed.
    """
    texts: dict[str, list[str]] = {}
    stored: dict[str, Any] = {}
    for item in items:
        name, value = str(item.get("from_name")), item["value"]
        raw = value.get("text" if item.get("type") == "textarea" else item.get("type"))
        field = config.field(name)
        is_geometry = str(item.get("type")).startswith(_GEOMETRY_TYPES)
        if name not in config.control_names:
            what = "its mask is exported as it is" if is_geometry else "its value is kept, but not trained on"
            complain.append(("control", f"the labeling config no longer has a control {name!r}; {what}"))
        if field is None:
            if not is_geometry:
                stored[name] = raw  # a rating, a number, a removed control: no field text, but an annotator's work
            continue
        values = _values(field, raw, complain)
        texts.setdefault(name, []).extend(text for text in values if text.strip())
        if field.tag != "TextArea":
            stored[name] = raw
    return {name: values for name, values in texts.items() if values}, stored


def _values(field: Field, raw: Any, complain: list[tuple[ProblemKind, str]]) -> list[str]:
    """Convert a control's raw value to the texts that the model may answer with (choices by their text, not path)."""
    if isinstance(raw, str):
        raw = [raw]
    if not isinstance(raw, list):
        kind = type(raw).__name__
        complain.append(("text", f"{field.name!r} holds {kind}, expected a list; its value is not exported"))
        return []
    if field.tag == "TextArea":
        if not all(isinstance(text, str) for text in raw):
            complain.append(("text", f"{field.name!r} holds values that are not texts; only its texts are exported"))
        return strings(raw)
    by_path = {choice.path: choice.text for choice in field.choices}
    paths = [tuple(str(part) for part in chosen) if isinstance(chosen, list) else (str(chosen),) for chosen in raw]
    return [by_path.get(path) or path[-1] if path else "" for path in paths]


def label_of(items: Sequence[Item]) -> str | None:
    """Return the first label of the region's labeling control."""
    for item in items:
        labels = item["value"].get(str(item.get("type")))
        if str(item.get("type")).endswith("labels") and strings(labels):
            return strings(labels)[0]
    return None


def meta_of(items: Iterable[Item]) -> Mapping[str, Any]:
    """Return this project's entry in the region's meta. Label Studio writes the meta to each item of the region."""
    for item in items:
        ours = mapping(item.get("meta")).get("osprey")
        if isinstance(ours, Mapping):
            return ours
    return {}


def suggestion_of(meta: Mapping[str, Any]) -> dict[str, list[str]] | None:
    """Return the model's answers by control; None for a region that was not predicted."""
    suggestion = meta.get("suggestion")
    if not isinstance(suggestion, Mapping):
        return None
    return {str(name): [value] if isinstance(value, str) else strings(value) for name, value in suggestion.items()}


def annotator_of(annotation: Mapping[str, Any]) -> int | None:
    """Return the annotator's number. The e-mail address is not read."""
    completed_by = annotation.get("completed_by")
    return integer(completed_by.get("id") if isinstance(completed_by, Mapping) else completed_by)


def mapping(value: Any) -> Mapping[str, Any]:
    """Return the value if it is an object, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def strings(value: Any) -> list[str]:
    """Return the strings in a list; an empty list for any other value."""
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else []


def string(value: Any) -> str | None:
    """Return the value if it is a string."""
    return value if isinstance(value, str) else None


def integer(value: Any) -> int | None:
    """Return the value if it is a whole number; booleans do not count."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def number(value: Any) -> float | None:
    """Return the value if it is a finite number (JSON has no NaN), else None."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not np.isfinite(value):
        return None
    return float(value)
