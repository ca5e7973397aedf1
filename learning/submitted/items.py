"""Result items of one region -> its words, label, parent and what the model had suggested.

Next on the path: `learning/submitted/regions.py`, which decides what a region is.
"""

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
    """The words of each filled control, and the raw values where Label Studio holds something else.

    Args:
        config: the project's, as it is now.
        items: all of one region.
        complain: gets (kind, sentence) for each value that is not used as it stands.
    """
    texts: dict[str, list[str]] = {}
    stored: dict[str, Any] = {}
    for item in items:
        name, value = str(item.get("from_name")), item["value"]
        raw = value.get("text" if item.get("type") == "textarea" else item.get("type"))
        field = config.field(name)
        is_geometry = str(item.get("type")).startswith(_GEOMETRY_TYPES)
        if name not in config.control_names:
            what = "its mask is exported as it is" if is_geometry else "its value is kept, not taught"
            complain.append(("control", f"the config has no control {name!r} any more; {what}"))
        if field is None:
            if not is_geometry:
                stored[name] = raw  # a rating, a number, a control that was removed: no words, but somebody's work
            continue
        words = _words(field, raw, complain)
        texts.setdefault(name, []).extend(word for word in words if word.strip())
        if field.tag != "TextArea":
            stored[name] = raw
    return {name: words for name, words in texts.items() if words}, stored


def _words(field: Field, raw: Any, complain: list[tuple[ProblemKind, str]]) -> list[str]:
    """What a control's raw value says, in the words the model may say."""
    if isinstance(raw, str):
        raw = [raw]
    if not isinstance(raw, list):
        kind = type(raw).__name__
        complain.append(("text", f"{field.name!r} holds {kind} where a list was expected; its words are not exported"))
        return []
    if field.tag == "TextArea":
        if not all(isinstance(text, str) for text in raw):
            complain.append(("text", f"{field.name!r} holds something else than texts; only its texts are exported"))
        return strings(raw)
    by_path = {choice.path: choice.text for choice in field.choices}
    paths = [tuple(str(part) for part in chosen) if isinstance(chosen, list) else (str(chosen),) for chosen in raw]
    return [by_path.get(path) or path[-1] if path else "" for path in paths]


def label_of(items: Sequence[Item]) -> str | None:
    """The first label of the region's labelling control."""
    for item in items:
        labels = item["value"].get(str(item.get("type")))
        if str(item.get("type")).endswith("labels") and strings(labels):
            return strings(labels)[0]
    return None


def meta_of(items: Iterable[Item]) -> Mapping[str, Any]:
    """Our part of the region's meta. Label Studio writes the region's meta to each of its items."""
    for item in items:
        ours = mapping(item.get("meta")).get("osprey")
        if isinstance(ours, Mapping):
            return ours
    return {}


def suggestion_of(meta: Mapping[str, Any]) -> dict[str, list[str]] | None:
    """What the model said, by control; None for a region that nobody predicted."""
    suggestion = meta.get("suggestion")
    if not isinstance(suggestion, Mapping):
        return None
    return {str(name): [words] if isinstance(words, str) else strings(words) for name, words in suggestion.items()}


def annotator_of(annotation: Mapping[str, Any]) -> int | None:
    """The annotator's number; the e-mail address stays in Label Studio."""
    completed_by = annotation.get("completed_by")
    return integer(completed_by.get("id") if isinstance(completed_by, Mapping) else completed_by)


def mapping(value: Any) -> Mapping[str, Any]:
    """The value where it is an object, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def strings(value: Any) -> list[str]:
    """The strings of a list; of anything else none."""
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else []


def string(value: Any) -> str | None:
    """The value where it is a string."""
    return value if isinstance(value, str) else None


def integer(value: Any) -> int | None:
    """The value where it is a whole number, which True is not."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def number(value: Any) -> float | None:
    """A finite number, or None: NaN is no JSON."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not np.isfinite(value):
        return None
    return float(value)
