"""The regions that the page shows: from drafts, annotations, predictions, and answers of the last seconds."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from backend.click import page as page_module
from backend.click.page import DRAFT_LAG_S, RECENT_S, Page, read_page
from backend.click.region import RegionRecord
from label_config.geometry import encode_bitmask_png
from label_config.reader import LabelConfig, read_label_config
from tests.support.click_fakes import BALL, DOT, HEIGHT, WIDTH, payload, region_record

XML = """<View><Image name="image" value="$image"/><KeyPoint name="click" toName="image" smart="true"/>
<BitmaskLabels name="mask" toName="image"><Label value="Object"/></BitmaskLabels>
<TextArea name="category" toName="image" perRegion="true"/><TextArea name="notice" toName="image"/></View>"""
NOW = 1_800_000_000.0
RECORD = region_record("r1", BALL, answered_at=NOW - 1)


@pytest.fixture
def config() -> LabelConfig:
    return read_label_config(XML)


def items(region_id: str = "r1", mask: np.ndarray = BALL, **changes: Any) -> list[dict[str, Any]]:
    """Return a region as Label Studio stores it: its geometry is in the text item, too."""
    base = {
        "id": region_id,
        "to_name": "image",
        "original_width": WIDTH,
        "original_height": HEIGHT,
        "image_rotation": 0,
    }
    image = {"imageDataURL": encode_bitmask_png(mask)}
    geometry = {"type": "bitmasklabels", "from_name": "mask", "value": {**image, "bitmasklabels": ["Object"]}}
    text = {"type": "textarea", "from_name": "category", "value": {**image, "text": ["ball"]}}
    return [{**base, "origin": "prediction", **item, **changes} for item in (geometry, text)]


def draft(*results: list[dict[str, Any]], saved_at: float = NOW, user: str = "ann") -> dict[str, Any]:
    saved = datetime.fromtimestamp(saved_at, UTC).isoformat()
    return {"user": user, "updated_at": saved, "result": [item for result in results for item in result]}


def read(config: LabelConfig, *records: RegionRecord, **task: Any) -> Page:
    return read_page(task, {record.region.region_id: record for record in records}, config, (WIDTH, HEIGHT), NOW)


def shown(page: Page) -> list[str]:
    return [region.region_id for region in page.regions]


def test_a_draft_shows_its_regions_and_whose_page_it_is(config: LabelConfig) -> None:
    page = read(config, drafts=[draft(items())])
    (region,) = page.regions
    assert page.annotator == "ann"
    assert (region.label, region.origin, region.values) == ("Object", "prediction", {"category": ["ball"]})
    assert np.array_equal(region.mask, BALL)


def test_a_region_answered_just_now_is_on_the_page(config: LabelConfig) -> None:
    """Drafts lag: without the session a second click could not find its object."""
    assert shown(read(config, RECORD)) == ["r1"]
    assert shown(read(config, RECORD, drafts=[draft(saved_at=NOW - 3)])) == ["r1"]


def test_a_region_that_a_later_draft_lacks_was_deleted(config: LabelConfig) -> None:
    earlier = replace(RECORD, answered_at=NOW - DRAFT_LAG_S - 2)
    assert shown(read(config, earlier, drafts=[draft(saved_at=NOW)])) == []


def test_a_region_that_was_never_saved_is_forgotten_after_a_while(config: LabelConfig) -> None:
    assert shown(read(config, replace(RECORD, answered_at=NOW - RECENT_S - 1))) == []


def test_another_annotators_answer_is_not_on_this_page(config: LabelConfig) -> None:
    theirs = replace(RECORD, annotator="bob")
    assert shown(read(config, theirs, drafts=[draft(user="ann", saved_at=NOW - 5)])) == []


@pytest.mark.parametrize("source", ["annotations", "predictions"])
def test_without_a_draft_the_submitted_or_predicted_regions_are_shown(config: LabelConfig, source: str) -> None:
    assert shown(read(config, **{source: [draft(items())]})) == ["r1"]
    assert shown(read(config, drafts=[draft(items("d1"))], **{source: [draft(items())]})) == ["d1"]


def test_an_edited_mask_is_read_from_the_draft(config: LabelConfig) -> None:
    page = read(config, RECORD, drafts=[draft(items(mask=DOT, origin="prediction-changed"))])
    assert np.array_equal(page.regions[0].mask, DOT)


def test_the_later_of_two_drafts_counts(config: LabelConfig) -> None:
    older, newer = draft(items(), saved_at=NOW - 9), draft(items(mask=DOT), saved_at=NOW)
    page = read(config, drafts=[newer, older])
    assert np.array_equal(page.regions[0].mask, DOT)
    assert len(page.regions[0].items) == 2


def test_a_stray_point_or_an_unreadable_mask_is_no_region_to_click(config: LabelConfig) -> None:
    point = {"id": "k", "type": "keypoint", "from_name": "click", "value": {"x": 1, "y": 1, "width": 1}}
    broken = items("r9")
    broken[0]["value"] = {"imageDataURL": "data:image/png;base64,AAAA", "bitmasklabels": ["Object"]}
    page = read(config, drafts=[draft([point], broken)])
    assert shown(page) == ["r9"]
    assert page.smallest_around(160, 160) is None


def test_a_mask_of_another_image_size_is_left_alone(config: LabelConfig) -> None:
    smaller = [{**item, "original_width": 256, "original_height": 192} for item in items(mask=BALL[::2, ::2])]
    assert read(config, drafts=[draft(smaller)]).regions[0].mask is None


def test_a_shown_notice_is_noticed(config: LabelConfig) -> None:
    notice = {"id": "n", "type": "textarea", "from_name": "notice", "value": {"text": ["No worker"]}}
    assert read(config, drafts=[draft([notice])]).shows_notice
    assert not read(config, drafts=[draft([{**notice, "value": {"text": []}}])]).shows_notice


def test_the_smallest_region_around_a_point(config: LabelConfig) -> None:
    page = read(config, drafts=[draft(items("ball"), items("dot", DOT))])
    assert page.smallest_around(160, 160).region_id == "dot"
    assert page.smallest_around(200, 160).region_id == "ball"
    assert page.smallest_around(500, 380) is None


def test_a_mask_is_not_decoded_for_a_point_far_from_it(config: LabelConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoding two dozen masks of a large photograph takes most of a second."""
    page = read(config, RECORD)
    monkeypatch.setattr(page_module, "decode_mask", pytest.fail)
    assert page.smallest_around(500, 380) is None
    assert page.smallest_around(99, 160) is None
    monkeypatch.undo()
    assert page.smallest_around(101, 160).region_id == "r1"


def test_the_recorded_draft_is_read() -> None:
    """Its polygon is shortened ("... 22 more"), so only its values can be read, and not its mask."""
    xml = XML.replace("BitmaskLabels", "PolygonLabels").replace('name="mask"', 'name="poly"')
    task = payload("predict_click_with_draft")["tasks"][0]
    page = read_page(task, {}, read_label_config(xml), (1024, 768), NOW)
    (region,) = page.regions
    assert (region.origin, region.values, region.mask) == ("manual", {"category": ["car"]}, None)
    assert page.annotator == "admin@example.com"
