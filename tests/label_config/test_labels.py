"""Which label a region gets."""

from __future__ import annotations

import pytest

from label_config.labels import classes, object_label, part_label
from label_config.reader import LabelConfig, read_label_config


def config_with(*labels: str) -> LabelConfig:
    inside = "".join(f'<Label value="{label}"/>' for label in labels)
    return read_label_config(
        f"""<View><Image name="image" value="$image"/><KeyPoint name="click" toName="image" smart="true"/>
        <BitmaskLabels name="mask" toName="image">{inside}</BitmaskLabels>
        <TextArea name="category" toName="image" perRegion="true"/></View>"""
    )


@pytest.mark.parametrize(
    ("labels", "chosen", "expected"),
    [
        (("Part", "Object"), None, "Object"),
        (("Part", "Object"), "Object", "Object"),
        (("Part", "Object"), "Part", "Object"),
        (("car", "dog"), None, "car"),
        (("car", "dog"), "dog", "dog"),
        (("Part",), None, "Part"),
    ],
)
def test_an_object_gets(labels: tuple[str, ...], chosen: str | None, expected: str) -> None:
    assert object_label(config_with(*labels), chosen) == expected


@pytest.mark.parametrize(
    ("labels", "chosen", "parent", "expected"),
    [
        (("Object", "Part"), None, "Object", "Part"),
        (("Object", "Part"), "Object", "Object", "Part"),
        (("car", "wheel"), "wheel", "car", "wheel"),
        (("car", "wheel"), None, "wheel", "wheel"),
        (("car", "wheel"), None, None, "car"),
    ],
)
def test_a_part_gets(labels: tuple[str, ...], chosen: str | None, parent: str | None, expected: str) -> None:
    assert part_label(config_with(*labels), chosen, parent) == expected


def test_only_labels_that_are_categories_are_asked_for() -> None:
    assert classes(config_with("car", "dog", "Part"), None) == ("car", "dog")
    assert classes(config_with("car", "dog"), "car") == ()
    assert classes(config_with("Object", "Part"), None) == ()
    assert classes(config_with("car"), None) == ()
