"""Values that come after their click, and regions whose label Label Studio replaced."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from backend.click.notices import LATE
from backend.predict import Answer
from job_queue.contracts import DescribeAnswer, DescribeJob
from job_queue.errors import JobFailed
from tests.support.annotator_desk import FIVE_FIELDS, Desk, blind_desk, mask_of, notice, texts
from tests.support.click_fakes import BALL, point_item


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_late_values_do_not_delay_the_mask(desk: Desk) -> None:
    """Values that are ready within the budget are filled in; the region's note announces the others."""
    desk.queue.describe_ready, desk.queue.partial = False, 3
    answer = desk.click(200, 160)
    assert np.array_equal(mask_of(answer), BALL)
    assert texts(answer) == {"category": ["ball"], "part": ["whole"], "attribute": ["red", "rubber"]}
    assert answer.items[0]["meta"]["text"] == [LATE]


def late_then_saved(desk: Desk) -> tuple[Answer, list[dict[str, Any]]]:
    desk.queue.describe_ready, desk.queue.partial = False, 3
    late = desk.click(200, 160)
    items = desk.save_draft(late)
    desk.queue.describe_ready = True
    return late, items


def test_late_values_come_with_the_next_answer(desk: Desk) -> None:
    """The new region comes first, then the earlier one, complete and under its own id. It is sent once."""
    late, _ = late_then_saved(desk)
    answer = desk.click(350, 200, "p2")
    earlier = [item for item in answer.items if item["id"] == late.items[0]["id"]]
    assert answer.items[0]["id"] != late.items[0]["id"]
    assert {item["from_name"] for item in earlier} == {"mask", *FIVE_FIELDS}
    assert "text" not in earlier[0]["meta"]
    again = desk.click(20, 20, "p3")
    assert not any(item["id"] == late.items[0]["id"] for item in again.items)


def test_late_values_wait_for_a_draft_that_shows_the_region(desk: Desk) -> None:
    """Without a draft the backend cannot know what the annotator typed or deleted, so it sends nothing again."""
    desk.queue.describe_ready = False
    late = desk.click(200, 160)
    desk.queue.describe_ready = True
    answer = desk.click(350, 200, "p2")
    assert not any(item["id"] == late.items[0]["id"] for item in answer.items)


def test_late_values_do_not_replace_typed_and_deleted_ones(desk: Desk) -> None:
    """A typed value and a deleted one stay, only missing values are filled in, and the mask stays as drawn."""
    late, items = late_then_saved(desk)
    by_control = {item["from_name"]: item for item in items}
    by_control["category"]["value"]["text"] = ["football"]
    desk.task["drafts"][0]["result"] = [
        {**item, "origin": "prediction-changed"} for item in items if item["from_name"] != "attribute"
    ]
    answer = desk.click(350, 200, "p2")
    earlier = [item for item in answer.items if item["id"] == late.items[0]["id"]]
    expected = {name: value for name, value in FIVE_FIELDS.items() if name != "attribute"}
    assert {item["from_name"]: item["value"]["text"] for item in earlier[1:]} == {**expected, "category": ["football"]}
    assert earlier[0]["origin"] == "prediction-changed"
    assert earlier[0]["value"]["imageDataURL"] == items[0]["value"]["imageDataURL"]


def test_late_values_do_not_bring_back_a_deleted_region(desk: Desk) -> None:
    late, _ = late_then_saved(desk)
    desk.task["drafts"][0]["result"] = []
    answer = desk.click(350, 200, "p2")
    assert not any(item["id"] == late.items[0]["id"] for item in answer.items)


def test_a_prompt_inside_a_late_region_fetches_its_values_and_keeps_typed_ones(desk: Desk) -> None:
    """The describe gesture fills empty fields and keeps typed values."""
    late, items = late_then_saved(desk)
    items[1]["value"]["text"] = ["football"]
    for item in items:
        item["origin"] = "prediction-changed"
    answer = desk.click(200, 161, "p2")
    assert answer.items[0]["id"] == late.items[0]["id"]
    assert answer.items[0]["origin"] == "prediction-changed"
    assert texts(answer) == {**FIVE_FIELDS, "category": ["football"]}


def test_late_values_of_another_label_wait_while_a_label_is_active(desk: Desk) -> None:
    """Label Studio would put the active label on the earlier region."""
    late, _ = late_then_saved(desk)
    answer = desk.send(*active(point_item(350, 200, "p2"), "Part"))
    assert not any(item["id"] == late.items[0]["id"] for item in answer.items)
    answer = desk.click(350, 220, "p3")
    assert any(item["id"] == late.items[0]["id"] for item in answer.items)


def test_a_region_whose_values_never_come_gets_one_notice(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The describe job failed after the click was answered: the next answer reports it, once."""
    late, _ = late_then_saved(desk)
    late_job = desk.queue.of_kind(DescribeJob)[-1].content_id()
    answers = desk.queue.wait_describe

    def fails(job_id: str, timeout_s: float) -> DescribeAnswer:
        if job_id == late_job:
            raise JobFailed("out of memory")
        return answers(job_id, timeout_s)

    monkeypatch.setattr(desk.queue, "wait_describe", fails)
    answer = desk.click(350, 200, "p2")
    assert not any(item["id"] == late.items[0]["id"] for item in answer.items)
    assert notice(answer) == ["An earlier region was not described: click inside it to try again. out of memory"]
    assert notice(desk.click(30, 30, "p3"))[0].startswith("Nothing was found")


def test_a_refused_click_still_brings_late_values(desk: Desk) -> None:
    late, _ = late_then_saved(desk)
    answer = desk.click(500, 380, "p2")
    assert "Nothing was found" in notice(answer)[0]
    assert {item["from_name"] for item in answer.items if item["id"] == late.items[0]["id"]} == {"mask", *FIVE_FIELDS}


def active(item: dict[str, Any], label: str) -> list[dict[str, Any]]:
    """Return the click as Label Studio sends it while an output label is active, such as a selected region's."""
    value = {**item["value"], "labels": [label]}
    output = {**item, "type": "bitmasklabels", "from_name": "mask", "value": {**value, "bitmasklabels": [label]}}
    return [{**item, "value": value}, output]


def test_a_part_gets_its_label_back_that_the_page_replaced(desk: Desk) -> None:
    """The page puts a selected object's label on the part; the first answer without an active label corrects it."""
    whole = desk.click(200, 160)
    part = desk.send(*active(point_item(160, 160, "p2"), "Object"))
    assert part.items[0]["value"]["bitmasklabels"] == ["Part"]
    items = desk.save_draft(whole, part)
    for item in items:
        if "bitmasklabels" in item["value"]:
            item["value"]["bitmasklabels"] = ["Object"]
    while_active = desk.send(*active(point_item(350, 200, "p3"), "Object"))
    assert {item["id"] for item in while_active.items}.isdisjoint({part.items[0]["id"], whole.items[0]["id"]})
    corrected = desk.click(350, 200, "p4")
    again = [item for item in corrected.items if item["id"] == part.items[0]["id"]]
    assert again[0]["value"]["bitmasklabels"] == ["Part"]
    assert [item["value"] for item in again[1:]] == [item["value"] for item in part.items[1:]]
    assert again[0]["meta"] == part.items[0]["meta"]
    assert not any(item["id"] == whole.items[0]["id"] for item in corrected.items)


def test_late_values_of_a_blind_task_stay_hidden_and_typed_ones_stay() -> None:
    """The next answer brings the model's answers into the meta, and keeps what the annotator typed."""
    desk = blind_desk()
    desk.queue.describe_ready = False
    late = desk.click(200, 160)
    items = desk.save_draft(late)
    geometry = next(item for item in items if "score" in item)
    typed = {"type": "textarea", "from_name": "category", "value": {**geometry["value"], "text": ["globe"]}}
    desk.task["drafts"][0]["result"].append({**{k: geometry[k] for k in ("id", "to_name", "origin")}, **typed})
    desk.queue.describe_ready = True
    answer = desk.click(350, 200, "p2")
    earlier = [item for item in answer.items if item["id"] == late.items[0]["id"]]
    assert [item["value"].get("text") for item in earlier] == [None, ["globe"]]
    assert earlier[0]["meta"]["osprey"]["blind"] is True
    assert earlier[0]["meta"]["osprey"]["suggestion"]["category"] == ["ball"]
