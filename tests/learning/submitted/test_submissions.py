"""Claims about reading tasks: what cannot be used is reported, and the rest is read."""

from __future__ import annotations

import re

import numpy as np
import pytest

from job_queue.mask_codec import decode_mask
from label_config.geometry import encode_bitmask_png
from learning.submitted.submissions import image_file_name
from tests.support.exports import exported, street
from tests.support.stored_annotations import region_mask_of, stored_annotation
from tests.support.submitted import CAR, annotation, region, task


def broken_items() -> dict[str, dict]:
    """Return one item per kind of fault, by a part of the expected problem."""
    good = region("x0000001", {})[0]
    return {
        "cannot be read": good | {"id": "b1", "value": {"imageDataURL": "data:image/png;base64,AAAA"}},
        "1024x768 pixels, got": good | {"id": "b2", "value": {"imageDataURL": small_png()}},
        "has no area": good | {"id": "b3", "from_name": "point", "value": {"x": 1, "y": 2, "width": 0.2}},
        "not answered": good
        | {"id": "b4", "from_name": "box", "value": {"x": 1, "y": 2, "width": 5, "height": 5}},
        "belongs to 'text'": good | {"id": "b5", "to_name": "text"},
        "whole image": good | {"id": "b6", "type": "choices", "from_name": "quality", "value": {"choices": ["good"]}},
        "relation": {"type": "relation", "from_id": "a", "to_id": "b"},
        "no region id": {"type": "textarea", "value": {"text": ["x"]}},
        "expected an object": "text",  # type: ignore[dict-item]
        "covers no pixel": good | {"id": "b7", "type": "polygonlabels", "value": {"points": [[1, 1], [2, 1], [3, 1]]}},
        "original_width": good | {"id": "b8", "original_width": None},
    }


def small_png() -> str:
    """Return a bitmask with another size than its image."""
    return encode_bitmask_png(np.ones((4, 6), dtype=np.bool_))


@pytest.mark.parametrize("words", list(broken_items()))
def test_what_cannot_be_used_is_named_and_the_rest_exported(tmp_path, words):
    """An unusable item gives a problem with task, annotation and region; the good region is exported."""
    item = broken_items()[words]
    export = exported(tmp_path, task(4, annotation(8, [item], region("car00001", CAR))))
    assert [each.region for each in export.regions] == ["car00001"]
    (problem,) = export.problems
    assert words in problem.problem
    assert (problem.task, problem.annotation) == (4, 8)
    if (
        isinstance(item, dict)
        and item.get("id", "").startswith("b")
        and words not in ("whole image", "belongs to 'text'")
    ):
        assert problem.region == item["id"]
    assert export.manifest["counts"]["problems"] == 1


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (task(4, annotation(8, region("car00001", CAR))) | {"data": {}}, "no image under 'image'"),
        (task(4, {"result": []}), "annotation has no number"),
        ({"id": "x"}, "task has no number"),
        (task(4, annotation(8) | {"result": "text"}), "expected a list as result, got str"),
    ],
)
def test_broken_task_is_named(tmp_path, broken, words):
    """A task or annotation that cannot be read is reported, and the others are exported."""
    export = exported(tmp_path, broken, street())
    assert len(export.regions) == 3
    assert words in export.problems[0].problem


def test_regions_of_another_image_size_are_named(tmp_path):
    """A region whose size differs from the rest of its annotation is reported and left out."""
    other = region("car00002", {})
    for item in other:
        item.update(original_width=6, original_height=4, value={"imageDataURL": small_png()})
    export = exported(tmp_path, task(4, annotation(8, region("car00001", CAR), other)))
    assert [each.region for each in export.regions] == ["car00001"]
    assert (export.problems[0].region, "image size" in export.problems[0].problem) == ("car00002", True)


def test_skipped_annotations_and_notices_are_no_data(tmp_path):
    """A skipped annotation is only counted, and a notice of the backend is no region."""
    notice = {
        "id": "n",
        "type": "textarea",
        "from_name": "notice",
        "to_name": "image",
        "value": {"text": ["no worker"]},
    }
    export = exported(tmp_path, street(), task(12, annotation(9, region("house001", CAR), was_cancelled=True)))
    assert export.manifest["counts"]["skipped_annotations"] == 1
    assert {each.annotation for each in export.regions} == {7}
    export = exported(tmp_path, task(4, annotation(8, [notice], region("car00001", CAR))))
    assert export.problems == ()


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("/data/upload/3/f4b2e5a7-street_1.PNG", "task5-f4b2e5a7-street-1.png"),
        ("/data/local-files/?d=ds%2Fa%20b.jpg", "task5-a-b.jpg"),
        ("https://host/x/y.jpeg?token=secret", "task5-y.jpeg"),
        ("s3://bucket/über.png", "task5-ber.png"),
        ("https://host/", "task5-image"),
    ],
)
def test_image_names(url, name):
    """File names are plain, unique by task, and without underscores, where the readers would cut them."""
    assert image_file_name(5, url) == name


def test_image_inside_the_task_is_named_by_its_hash(tmp_path):
    """An embedded image is listed by its hash, not with its data."""
    url = "data:image/png;base64," + "A" * 1000
    export = exported(tmp_path, task(4, annotation(8, region("car00001", CAR)), url=url))
    ((name, shown),) = export.images.items()
    assert re.fullmatch(r"task4-[0-9a-f]{12}\.png", name)
    assert len(shown) < 120


@pytest.mark.parametrize("name", ["bitmask_and_brush_meta", "polygon", "vector"])
def test_annotations_recorded_from_label_studio(tmp_path, name):
    """Every region that a real server stored is read with mask, values and meta."""
    stored = stored_annotation(name)
    export = exported(tmp_path, task(stored["task"], stored))
    assert {each.region for each in export.regions} == {item["id"] for item in stored["result"]}
    controls = {item["from_name"] for item in stored["result"]} - {"category", "short_description", "mask"}
    assert {problem.kind for problem in export.problems} <= {"control"}  # drawn under configs with other masks
    assert {re.findall(r"'(.*?)'", problem.problem)[0] for problem in export.problems} == controls
    for each in export.regions:
        assert np.array_equal(decode_mask(each.mask), region_mask_of(each.region))
        assert each.texts == {"category": ["car"], "short_description": ["a blue car"]}
        assert each.annotator == 1
    if name == "bitmask_and_brush_meta":
        assert [each.parent for each in export.regions] == [None, None, "meta00001"]
        assert [each.origin for each in export.regions] == ["manual", "prediction", "prediction"]
