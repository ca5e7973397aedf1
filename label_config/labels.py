"""Which label of the output control a region gets. Pure."""

from __future__ import annotations

from label_config.reader import LabelConfig

_OBJECT_NAMES = frozenset({"object", "whole", "whole object", "region", "thing", "instance"})
_PART_NAMES = frozenset({"part", "subpart", "sub-part"})


def is_part_label(label: str | None) -> bool:
    """Whether a label marks its region as a part of another one."""
    return label is not None and label.strip().lower() in _PART_NAMES


def object_label(config: LabelConfig, chosen: str | None) -> str | None:
    """Return an object's label: the one chosen in the page, else "Object" or a synonym of it, else the first."""
    if chosen is not None and not is_part_label(chosen):
        return chosen
    labels = config.output.labels
    plain = [label for label in labels if not is_part_label(label)]
    named = [label for label in plain if label.strip().lower() in _OBJECT_NAMES]
    return next(iter([*named, *plain, *labels]), None)


def part_label(config: LabelConfig, chosen: str | None, parent: str | None) -> str | None:
    """Return a part's label: "Part" if the config lists it, else the one chosen in the page, else its object's."""
    if is_part_label(chosen):
        return chosen
    named = [label for label in config.output.labels if is_part_label(label)]
    return next(iter(named), None) or chosen or parent or object_label(config, None)


def classes(config: LabelConfig, chosen: str | None) -> tuple[str, ...]:
    """Return the labels that the model chooses from, if the output's labels are categories; otherwise ()."""
    labels = tuple(label for label in config.output.labels if not is_part_label(label))
    if chosen is not None or len(labels) < 2 or any(label.strip().lower() in _OBJECT_NAMES for label in labels):
        return ()
    return labels
