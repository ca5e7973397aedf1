"""A region as result items: the order and shape that the page needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from label_config.reader import LabelConfig, read_label_config
from label_config.results import AnsweredRegion, region_items
from label_config.validate import validate_results
from tests.support.click_fakes import BALL, HEIGHT, WIDTH

CONFIGS = Path(__file__).parents[2] / "label_config"


@pytest.fixture
def config() -> LabelConfig:
    return read_label_config((CONFIGS / "bitmask.xml").read_text())


def region(**changes: object) -> AnsweredRegion:
    given = {
        "region_id": "r1", "image_wh": (WIDTH, HEIGHT), "mask": BALL, "label": "Object",
        "values": {"category": ["ball"], "attribute": ["red", "round"]}, "score": 0.8,
    }  # fmt: skip
    return AnsweredRegion(**{**given, **changes})  # type: ignore[arg-type]


def test_geometry_comes_first_and_every_item_shares_its_id(config: LabelConfig) -> None:
    items = region_items(config, region())
    assert [item["from_name"] for item in items] == ["mask", "category", "attribute"]
    assert {item["id"] for item in items} == {"r1"}
    assert validate_results(config, items) == []


def test_texts_are_lists_and_empty_controls_are_left_out(config: LabelConfig) -> None:
    items = region_items(config, region(values={"category": ["ball"], "part": []}))
    assert [item["value"] for item in items[1:]] == [{"text": ["ball"]}]


def test_what_the_learning_loop_needs_is_in_the_geometry(config: LabelConfig) -> None:
    meta = {"model_version": "m1", "suggestion": {"category": ["ball"]}}
    items = region_items(config, region(osprey_meta=meta, notes=("late",), parent_id="r0"))
    assert items[0]["meta"] == {"text": ["late"], "osprey": meta}
    assert {(item["origin"], item["parentID"]) for item in items} == {("prediction", "r0")}
    assert items[0]["score"] == 0.8


def test_a_drawn_geometry_goes_back_as_it_is(config: LabelConfig) -> None:
    value = {"imageDataURL": "data:image/png;base64,AAAA", "bitmasklabels": ["Object"]}
    items = region_items(config, region(drawn={"value": value}, origin="manual"))
    assert items[0]["value"] == value
    assert items[0]["value"] is not value
    assert items[0]["origin"] == "manual"


def test_a_control_without_labels_carries_none() -> None:
    config = read_label_config(
        """<View><Image name="image" value="$image"/><KeyPoint name="click" toName="image" smart="true"/>
        <Brush name="mask" toName="image"/><TextArea name="category" toName="image" perRegion="true"/></View>"""
    )
    items = region_items(config, region(label=None, values={"category": ["ball"]}))
    assert items[0]["type"] == "brush"
    assert set(items[0]["value"]) == {"format", "rle"}
    assert validate_results(config, items) == []
