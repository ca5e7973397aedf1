"""Every form of prompt that Label Studio sends, and malformed ones."""

from __future__ import annotations

from typing import Any

import pytest

from backend.click.prompts import PromptError, read_prompt
from label_config.reader import LabelConfig, read_label_config
from tests.support.click_fakes import HEIGHT, WIDTH, box_item, payload, point_item

XML = """<View><Image name="image" value="$image"/><KeyPoint name="click" toName="image" smart="true"/>
<BrushLabels name="mask" toName="image"><Label value="Object"/><Label value="Part"/></BrushLabels>
<TextArea name="category" toName="image" perRegion="true"/></View>"""


@pytest.fixture
def config() -> LabelConfig:
    return read_label_config(XML)


def recorded(name: str, config: LabelConfig) -> Any:
    body = payload(name)
    return read_prompt(body.get("params", body)["context"], config)


def test_a_click_is_in_pixels_of_the_upright_image(config: LabelConfig) -> None:
    prompt = recorded("predict_click_1", config)
    (point,) = prompt.points
    assert prompt.image_wh == (1024, 768)
    assert (point.x_px, point.y_px) == pytest.approx((593.896, 560.902), abs=0.01)
    assert point.positive
    assert prompt.label is None


@pytest.mark.parametrize("name", ["predict_click_3_positive_positive_negative", "predict_click_3_labelled"])
def test_all_pending_points_come_together(name: str, config: LabelConfig) -> None:
    prompt = recorded(name, config)
    assert [point.positive for point in prompt.points] == [True, True, False]
    assert len(set(prompt.item_ids)) == 3


@pytest.mark.parametrize("name", ["predict_rectangle", "predict_rectangle_labelled"])
def test_a_rectangle_is_a_box_in_pixels(name: str, config: LabelConfig) -> None:
    assert recorded(name, config).box_px_xyxy == pytest.approx((450.7, 444.5, 737.3, 660.5), abs=1.1)


def test_an_active_label_comes_as_a_second_item_and_is_only_a_label(config: LabelConfig) -> None:
    prompt = recorded("predict_click_with_label_active", config)
    assert len(prompt.points) == 1
    assert prompt.label == "Object"


def test_a_label_of_the_tool_counts_when_the_output_lists_it(config: LabelConfig) -> None:
    labelled = {**point_item(10, 10), "type": "keypointlabels"}
    for label, expected in (("Part", "Part"), ("Background", None)):
        labelled["value"] = {**labelled["value"], "labels": [label], "keypointlabels": [label]}
        assert read_prompt({"result": [labelled]}, config).label == expected


@pytest.mark.parametrize("context", [{"result": []}, {"result": None}, {}])
def test_an_empty_context_is_no_prompt(context: dict[str, Any], config: LabelConfig) -> None:
    assert read_prompt(context, config) is None


def test_of_several_rectangles_the_last_counts(config: LabelConfig) -> None:
    prompt = read_prompt({"result": [box_item(0, 0, 50, 50, "b1"), box_item(100, 100, 200, 220, "b2")]}, config)
    assert prompt.box_px_xyxy == pytest.approx((100, 100, 200, 220))
    assert prompt.item_ids == ("b2",)


def test_a_rotated_rectangle_becomes_the_box_around_it(config: LabelConfig) -> None:
    item = box_item(200, 100, 300, 150)
    item["value"]["rotation"] = 90
    assert read_prompt({"result": [item]}, config).box_px_xyxy == pytest.approx((150, 100, 200, 200))


def test_a_view_that_was_rotated_changes_nothing(config: LabelConfig) -> None:
    """Percentages refer to the stored image also while the view is rotated."""
    (point,) = read_prompt({"result": [{**point_item(100, 50), "image_rotation": 90}]}, config).points
    assert (point.x_px, point.y_px) == pytest.approx((100, 50))


def test_a_drag_of_a_pixel_is_a_click(config: LabelConfig) -> None:
    prompt = read_prompt({"result": [box_item(100, 100, 101, 130)]}, config)
    assert prompt.box_px_xyxy is None
    assert (prompt.points[0].x_px, prompt.points[0].y_px) == pytest.approx((100.5, 115))


def test_a_click_on_the_border_lies_in_the_image(config: LabelConfig) -> None:
    (point,) = read_prompt({"result": [point_item(WIDTH, HEIGHT)]}, config).points
    assert (int(point.x_px), int(point.y_px)) == (WIDTH - 1, HEIGHT - 1)


def broken(**changes: Any) -> dict[str, Any]:
    item = point_item(10, 10)
    item["value"] = {**item["value"], **changes.pop("value", {})}
    return {**item, **changes}


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ("all", "list of result items"),
        (["p1"], "result item with id"),
        ([broken(id=None)], "result item with id"),
        ([broken(type=None)], "type of prompt"),
        ([broken(original_width=None)], "image size"),
        ([broken(original_height=0)], "image size"),
        ([broken(value={"x": "12"})], "finite number"),
        ([broken(value={"y": float("nan")})], "finite number"),
        ([broken(type="ellipse")], "no click and no box"),
        ([broken(to_name="audio")], "no click and no box"),
    ],
)
def test_a_malformed_prompt_is_named(result: Any, message: str, config: LabelConfig) -> None:
    with pytest.raises(PromptError, match=message):
        read_prompt({"result": result}, config)


def test_failed_points_are_left_out_unless_they_are_all(config: LabelConfig) -> None:
    prompt = read_prompt({"result": [point_item(1, 1, "a"), point_item(9, 9, "b")]}, config)
    assert prompt.without_items(frozenset({"a"})).item_ids == ("b",)
    assert prompt.without_items(frozenset({"a", "b"})) == prompt
    assert prompt.without_items(frozenset()) is prompt
