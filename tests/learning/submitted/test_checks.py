"""Claims about regions that no longer fit the config, and about values that cannot be trained on."""

from __future__ import annotations

import numpy as np
import pytest

from label_config.reader import read_label_config
from learning.export.version import ExportOptions, read_export
from learning.submitted.checks import MAX_TEXT_CHARS, fit
from learning.submitted.regions import regions_of
from tests.support.exports import export_project
from tests.support.submitted import CAR, CONFIG, PROJECT, annotation, region, task

ALL_TRAINED = ExportOptions(held_out_share=0.0)


def exported(tmp_path, *items, config=CONFIG):
    """Export one annotation of these regions under a config, and read it back."""
    project = {**PROJECT, "label_config": config}
    return read_export(export_project(project, [task(4, annotation(8, *items))], tmp_path, ALL_TRAINED).path)


def without_category(config: str) -> str:
    """Return the config with a renamed control."""
    assert 'name="category"' in config
    return config.replace('name="category"', 'name="object_name"')


def test_answer_of_a_removed_control_is_kept_and_named(tmp_path):
    """The value of a removed control is in `stored` and reported with task and region, but not trained on."""
    suggestion = {"category": ["truck"]}
    export = exported(tmp_path, region("car00001", CAR, suggestion=suggestion), config=without_category(CONFIG))
    (car,) = export.regions
    assert "category" not in car.texts
    assert car.stored["category"] == ["car"]
    assert "category" not in car.changed
    (problem,) = export.problems
    assert (problem.task, problem.region, problem.kind) == (4, "car00001", "control")
    assert "'category'" in problem.problem
    assert export.manifest["problems"] == {"control": 1}
    assert '"car"' not in str(export.entries)


def test_region_collected_under_an_older_config(tmp_path):
    """A region from the store is checked against the present config in the same way."""
    old = read_label_config(CONFIG)
    (car,), _ = regions_of(old, task(4), annotation(8, region("car00001", CAR)), "x.png")
    fitted, problems = fit(read_label_config(without_category(CONFIG)), car)
    assert fitted.stored["category"] == ["car"]
    assert set(fitted.texts) == set(CAR) - {"category"}
    assert [(each.region, each.kind) for each in problems] == [("car00001", "control")]
    assert fit(old, car) == (car, [])


def test_removed_label_and_choice_are_named(tmp_path):
    """A label that is no longer in the config is exported as it is, and reported."""
    export = exported(tmp_path, region("car00001", CAR, label="Thing"))
    assert export.regions[0].label == "Thing"
    assert [(each.kind, each.region) for each in export.problems] == [("control", "car00001")]


def test_a_huge_text_is_not_taught(tmp_path):
    """A text of 100 kB is kept in regions.jsonl and reported, but in no training file; other values are trained on."""
    huge = "very " * 20_000
    export = exported(tmp_path, region("car00001", {**CAR, "detailed_description": [huge]}))
    assert export.regions[0].stored["detailed_description"] == [huge]
    (problem,) = export.problems
    assert (problem.region, problem.kind) == ("car00001", "text")
    assert f"more than {MAX_TEXT_CHARS}" in problem.problem
    assert "very very" not in str(export.entries)
    assert "a blue car" in str(export.entries)


@pytest.mark.parametrize("text", ["<b>car</b>", "<region1>", "x > y"])
def test_markup_in_a_text_is_named(tmp_path, text):
    """A text with markup is written without brackets, and the problem has the text as typed."""
    export = exported(tmp_path, region("car00001", {"category": [text]}))
    (problem,) = export.problems
    assert (problem.task, problem.annotation, problem.region, problem.kind) == (4, 8, "car00001", "text")
    assert text in problem.problem
    assert export.regions[0].texts["category"] == [text]


def test_text_without_a_region_is_named_with_its_id(tmp_path):
    """A value without a mask is reported with task, annotation and region id; the rest is exported."""
    lost = {"id": "lost", "type": "textarea", "from_name": "category", "to_name": "image", "value": {"text": ["car"]}}
    export = exported(tmp_path, [lost], region("car00001", CAR))
    (problem,) = export.problems
    assert (problem.task, problem.annotation, problem.region) == (4, 8, "lost")
    assert [each.region for each in export.regions] == ["car00001"]


def test_one_region_of_another_size_does_not_cost_the_others(tmp_path):
    """The most frequent size of an annotation is kept, whatever the position of the other one."""
    odd = region("odd00001", CAR, mask=np.ones((4, 6), np.bool_))
    export = exported(tmp_path, odd, region("car00001", CAR), region("car00002", CAR))
    assert [each.region for each in export.regions] == ["car00001", "car00002"]
    assert [(each.region, each.kind) for each in export.problems] == [("odd00001", "image")]
