"""The stored form of a region's record: both releases of a rolling upgrade can read it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from backend.click.region import Region, RegionRecord, answered_region
from job_queue.contracts import PromptPoint, Question
from job_queue.field_answers import Filled
from tests.support.click_fakes import BALL, region_record

# Written by the backend of commit 97671b3: one flat object. That backend refuses a record with any other key.
OLD_RECORD = """{
    "version": 1, "region_id": "r1a2b3c", "image_wh": [8, 6], "mask": {"size": [6, 8], "counts": "8330l0"},
    "score": 0.91, "answered_at": 1795000000.5, "label": "Part", "active_label": "Object", "parent_id": "r0",
    "object_mask": {"size": [6, 8], "counts": "8330000000:"},
    "points": [{"x_px": 2.5, "y_px": 3.5, "positive": false}], "prompt_ids": ["p1"],
    "box_px_xyxy": [1.0, 2.0, 3.0, 4.0], "logits_id": "l1", "origin": "prediction-changed",
    "sent": {"category": ["ball"], "group": [["a", "b"]]}, "model_version": "osprey-1",
    "segmenter_version": "sam-1", "describe_job": "j1",
    "questions": [{"field": "category", "text": "What is {region}?", "form": "part", "choices": ["ball", "box"],
        "multiple": true, "mask_idx": 1, "max_new_tokens": 16}],
    "described": true, "blind": true, "annotator": "ann"
}"""
SAME_RECORD = RegionRecord(
    Region(
        region_id="r1a2b3c", image_wh=(8, 6), mask={"size": [6, 8], "counts": "8330l0"}, score=0.91, label="Part",
        parent_id="r0", object_mask={"size": [6, 8], "counts": "8330000000:"},
        points=(PromptPoint(2.5, 3.5, False),), prompt_ids=("p1",), box_px_xyxy=(1.0, 2.0, 3.0, 4.0),
        logits_id="l1", segmenter_version="sam-1", origin="prediction-changed",
    ),
    answered_at=1795000000.5, active_label="Object", sent={"category": ["ball"], "group": [["a", "b"]]},
    model_version="osprey-1", describe_job="j1",
    questions=(Question("category", "What is {region}?", "part", ("ball", "box"), True, 1, 16),),
    described=True, blind=True, annotator="ann",
)  # fmt: skip
LEAST_RECORD = {"region_id": "r1", "image_wh": [8, 6], "mask": {"size": [6, 8], "counts": "8330l0"}}


def stored(**changes: Any) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(OLD_RECORD)
    return {**record, **changes}


def test_a_record_of_an_earlier_release_is_read() -> None:
    assert RegionRecord.from_json(stored()) == SAME_RECORD


def test_an_earlier_release_can_read_a_record() -> None:
    """During a rolling upgrade an old backend may answer the next click: the stored keys stay exactly the same."""
    assert json.loads(json.dumps(SAME_RECORD.to_json())) == stored()


def test_unknown_keys_are_ignored() -> None:
    """Unknown keys of a point and of a question are ignored, too."""
    later = stored(rotation=90)
    later["points"][0]["pressure"] = 0.5
    later["questions"][0]["language"] = "en"
    assert RegionRecord.from_json(later) == SAME_RECORD


def test_a_missing_key_gets_its_default() -> None:
    record = RegionRecord.from_json(LEAST_RECORD)
    assert record == RegionRecord(Region("r1", (8, 6), {"size": [6, 8], "counts": "8330l0"}))
    assert (record.region.score, record.answered_at, record.described) == (1.0, 0.0, False)


@pytest.mark.parametrize("missing", ["region_id", "image_wh", "mask"])
def test_a_record_without_its_region_is_refused(missing: str) -> None:
    record = {name: value for name, value in LEAST_RECORD.items() if name != missing}
    with pytest.raises(ValueError, match=missing):
        RegionRecord.from_json(record)


def test_an_answered_region_holds_the_sent_values_and_the_models_suggestion() -> None:
    """The values are the record's; suggestion, confidence and versions are in the meta that is stored."""
    record = region_record("r1", BALL, sent={"category": ["globe"]}, model_version="m1", segmenter_version="s1")
    filled = Filled(suggestion={"category": ["ball"]}, confidence={"category": 0.5})
    answered = answered_region(record, filled, BALL, None, ("note",))
    assert (answered.region_id, answered.values, answered.notes) == ("r1", {"category": ["globe"]}, ("note",))
    assert answered.score == pytest.approx(0.9 * 0.5)
    assert answered.osprey_meta == {
        "model_version": "m1", "segmenter_version": "s1", "suggestion": {"category": ["ball"]},
        "confidence": {"category": 0.5}, "job": None,
    }  # fmt: skip
