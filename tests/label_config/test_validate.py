"""Claims about result items that may be sent to a page: everything that breaks the editor is reported."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest

import label_config
from label_config.geometry import encode_bitmask_png, encode_brush_rle, mask_to_polygon_pct
from label_config.reader import read_label_config
from label_config.validate import validate_results

READY = Path(label_config.__file__).parent
MASK = np.zeros((30, 40), dtype=np.bool_)
MASK[5:20, 8:30] = True

CLOSED_FIELDS = """<View>
  <Image name="image" value="$image"/><KeyPoint name="click" toName="image"/>
  <BitmaskLabels name="mask" toName="image" smart="false"><Label value="Object"/><Label value="Part"/></BitmaskLabels>
  <Choices name="category" toName="image" perRegion="true">
    <Choice value="car"/><Choice value="house" alias="h"/>
  </Choices>
  <Choices name="attribute" toName="image" perRegion="true" choice="multiple">
    <Choice value="red"/><Choice value="blue"/>
  </Choices>
  <Taxonomy name="part" toName="image" perRegion="true" whenLabelValue="Part">
    <Choice value="car"><Choice value="wheel"/></Choice>
  </Taxonomy>
</View>"""


def item(name: str, kind: str, value: dict, region_id: str = "r1", **more) -> dict:
    """One result item."""
    return {
        "id": region_id, "type": kind, "from_name": name, "to_name": "image",
        "original_width": 40, "original_height": 30, "image_rotation": 0, "value": value, **more,
    }  # fmt: skip


def geometry(kind: str = "bitmask", region_id: str = "r1", label: str = "Object") -> dict:
    """The geometry item of a region in one of our ready configs."""
    values = {
        "bitmask": {"imageDataURL": encode_bitmask_png(MASK)},
        "brush": {"format": "rle", "rle": encode_brush_rle(MASK)},
        "polygon": {"points": mask_to_polygon_pct(MASK), "closed": True},
    }
    return item("mask", f"{kind}labels", {**values[kind], f"{kind}labels": [label]}, region_id)


def text(name: str, *texts: str, region_id: str = "r1") -> dict:
    """A text item of a region."""
    return item(name, "textarea", {"text": list(texts)}, region_id)


def ready(kind: str = "bitmask"):
    """One of the configs we ship."""
    return read_label_config((READY / f"{kind}.xml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("kind", ["bitmask", "brush", "polygon"])
def test_complete_answer_is_safe(kind):
    """Object and nested part with all fields, meta, score and a notice have no problem."""
    answer = [
        geometry(kind) | {"origin": "prediction", "score": 0.9, "meta": {"text": ["nano"], "osprey": {"a": {"b": 1}}}},
        text("category", "car"),
        text("attribute", "red", "metal"),
        text("short_description", "a red car"),
        geometry(kind, "r2", "Part") | {"parentID": "r1"},
        text("part", "wheel", region_id="r2"),
        item("notice", "textarea", {"text": ["no worker is running"]}, "n1"),
    ]
    assert validate_results(ready(kind), answer) == []
    assert validate_results(ready(kind), []) == []


def changed(change) -> list[dict]:
    """Return a valid bitmask answer after `change` has broken it."""
    answer = copy.deepcopy([geometry(), text("category", "car")])
    change(answer)
    return answer


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda answer: answer.reverse(), "geometry must come before"),
        (lambda answer: answer.pop(0), "geometry must come before"),
        (lambda answer: answer[1]["value"].update(text="car"), "list of strings"),
        (lambda answer: answer[1]["value"].update(text=[1]), "list of strings"),
        (lambda answer: answer[1]["value"].update(text=["a", "b"]), "at most 1 of the 2"),
        (lambda answer: answer[1].update(type="choices"), "expected type 'textarea'"),
        (lambda answer: answer[1].update(id="r2"), "geometry must come before"),
        (lambda answer: answer[1].update(to_name="picture"), "to_name 'image'"),
        (lambda answer: answer[1].update(from_name="colour"), "no control 'colour'"),
        (lambda answer: answer[1].pop("value"), "expected a value"),
        (lambda answer: answer.append(copy.deepcopy(answer[1])), "already been answered"),
        (lambda answer: answer[0].update(id=""), "expected an id"),
        (lambda answer: answer[0].update(id=7), "expected an id"),
        (lambda answer: answer[0].update(type="brushlabels"), "expected type 'bitmasklabels'"),
        (lambda answer: answer[0].update(image_rotation=90), "image_rotation 0"),
        (lambda answer: answer[0].update(original_width=41), "41x30"),
        (lambda answer: answer[0].update(origin="magic"), "origin"),
        (lambda answer: answer[0].update(score=float("nan")), "finite"),
        (lambda answer: answer[0].update(score="high"), "finite"),
        (lambda answer: answer[0].update(parentID="r1"), "another region"),
        (lambda answer: answer[0].update(meta=["x"]), "meta to be an object"),
        (lambda answer: answer[0].update(meta={"text": "x"}), "meta.text"),
        (lambda answer: answer[0].update(meta={"osprey": {1, 2}}), "not JSON"),
        (lambda answer: answer[0]["value"].update(bitmasklabels=["Car"]), "label 'Car' is none of"),
        (lambda answer: answer[0]["value"].update(bitmasklabels=[]), "one label"),
        (lambda answer: answer[0]["value"].update(bitmasklabels="Object"), "one label"),
        (lambda answer: answer[0]["value"].pop("imageDataURL"), "value.imageDataURL"),
        (lambda answer: answer[0]["value"].update(imageDataURL="data:,"), "bitmask"),
        (lambda answer: answer[0]["value"].update(imageDataURL=encode_bitmask_png(MASK & False)), "no pixel"),
        (lambda answer: answer.append("text"), "expected an object"),
    ],
)
def test_trap_is_named(change, words):
    """Everything that would break the page is reported with what was expected."""
    problems = validate_results(ready(), changed(change))
    assert any(words in problem for problem in problems), problems


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"rle": encode_brush_rle(MASK)}, "value.format"),
        ({"format": "rle"}, "value.rle"),
        ({"format": "rle", "rle": []}, "header"),
        ({"format": "rle", "rle": encode_brush_rle(MASK & False)}, "no pixel"),
    ],
)
def test_brush_trap_is_named(value, words):
    """Brush geometry without format, without mask, or with an empty mask is reported."""
    answer = [item("mask", "brushlabels", {**value, "brushlabels": ["Object"]})]
    assert any(words in problem for problem in validate_results(ready("brush"), answer))


@pytest.mark.parametrize(
    ("points", "words"),
    [
        ([[0, 0], [101, 0], [50, 50]], "percent"),
        ([[0, 0], [50, 0]], "at least 3"),
        ("points", "percent"),
        ([[0, 0], [50, 0], [99, 0]], "no pixel"),
    ],
)
def test_polygon_trap_is_named(points, words):
    """Corners outside the image, too few corners, and polygons without area are reported."""
    answer = [item("mask", "polygonlabels", {"points": points, "closed": True, "polygonlabels": ["Object"]})]
    assert any(words in problem for problem in validate_results(ready("polygon"), answer))


def test_closed_fields_hold_listed_values():
    """Stored choices (alias before value) and whole taxonomy paths are valid."""
    answer = [
        geometry(label="Part"),
        item("category", "choices", {"choices": ["h"]}),
        item("attribute", "choices", {"choices": ["red", "blue"]}),
        item("part", "taxonomy", {"taxonomy": [["car", "wheel"]]}),
    ]
    assert validate_results(read_label_config(CLOSED_FIELDS), answer) == []


@pytest.mark.parametrize(
    ("spoiled", "words"),
    [
        (item("category", "choices", {"choices": ["house"]}), "'house' is none of the listed choices"),
        (item("category", "choices", {"choices": "car"}), "list of strings"),
        (item("category", "choices", {"choices": ["car", "h"]}), "at most 1 of the 2"),
        (item("category", "textarea", {"text": ["car"]}), "expected type 'choices'"),
        (item("part", "taxonomy", {"taxonomy": ["car"]}), "list of paths"),
        (item("part", "taxonomy", {"taxonomy": [[]]}), "list of paths"),
        (item("part", "taxonomy", {"taxonomy": [["wheel"]]}), "none of the listed paths"),
    ],
)
def test_closed_field_trap_is_named(spoiled, words):
    """Unlisted values, wrong nesting and too many values are reported."""
    problems = validate_results(read_label_config(CLOSED_FIELDS), [geometry(label="Part"), spoiled])
    assert any(words in problem for problem in problems), problems


def test_field_hidden_for_the_label_is_not_filled():
    """A control shown only for parts must stay empty on an object, because its value would be invisible."""
    answer = [geometry(), item("part", "taxonomy", {"taxonomy": [["car"]]})]
    assert "hidden for label 'Object'" in validate_results(read_label_config(CLOSED_FIELDS), answer)[0]


def test_notice_needs_a_notice_control():
    """A notice is reported as a problem if the config has no notice control."""
    notice = item("notice", "textarea", {"text": ["x"]}, "n1")
    assert "no control 'notice'" in validate_results(read_label_config(CLOSED_FIELDS), [notice])[0]
