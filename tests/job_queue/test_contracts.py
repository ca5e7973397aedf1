"""Claims about contracts: JSON does not change them, other versions are refused, ids depend only on the content."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from job_queue.contracts import (
    Alternative,
    DescribeAnswer,
    DescribeJob,
    FieldAnswer,
    ImageRef,
    LookAheadJob,
    MaskCandidate,
    PromptPoint,
    Question,
    RegionQuery,
    SegmentAnswer,
    SegmentJob,
    WarmJob,
)

IMAGE = ImageRef(url="/data/upload/1/ä.png", task_id=1)
RLE = {"size": [4, 6], "counts": "04"}
EVERY_CONTRACT = [
    WarmJob(image=IMAGE),
    LookAheadJob(3, 7, "image", 3),
    SegmentJob(
        IMAGE, (6, 4), (PromptPoint(1.5, 2.0), PromptPoint(3.0, 1.0, positive=False)), (0.0, 0.0, 2.0, 2.0), "l"
    ),
    SegmentJob(IMAGE, (6, 4)),
    SegmentAnswer((MaskCandidate(RLE, 0.9, 0.8, 12, "l"),), (6, 4), "ab", "sam-1", {"embed": 1.5}),
    DescribeJob(
        IMAGE, (6, 4), (RegionQuery("r", (RLE,), (Question("category", "What is {region}?", "part", ("a",)),)),)
    ),
    DescribeAnswer((FieldAnswer("r", 0, "category", ("a",), 0.5, (Alternative("b", 0.1),), ("w",)),), "ab", "osprey-1"),
]


@pytest.mark.parametrize("contract", EVERY_CONTRACT, ids=lambda contract: type(contract).__name__)
def test_round_trip_through_json(contract):
    """Reading the JSON of a contract gives an equal contract, including tuples and nested contracts."""
    assert type(contract).from_json(json.loads(json.dumps(contract.to_json()))) == contract


@given(
    st.lists(st.tuples(st.floats(0, 1e4), st.floats(0, 1e4), st.booleans()), max_size=5),
    st.one_of(st.none(), st.tuples(*[st.floats(-1e4, 1e4)] * 4)),
)
def test_any_prompt_survives(points, box):
    """Property: JSON changes no coordinate, number or sign of the points of a prompt."""
    job = SegmentJob(IMAGE, (6, 4), tuple(PromptPoint(*point) for point in points), box)
    assert SegmentJob.from_json(json.loads(json.dumps(job.to_json()))) == job


def test_other_version_is_refused():
    with pytest.raises(ValueError, match=r"contract version 2 .* expects version 1; restart"):
        WarmJob.from_json({**WarmJob(IMAGE).to_json(), "version": 2})


@pytest.mark.parametrize("contract", EVERY_CONTRACT, ids=lambda contract: type(contract).__name__)
def test_keys_of_a_later_release_are_ignored(contract):
    """Keys that this release does not have are ignored, in the contract and in nested contracts."""
    assert type(contract).from_json(with_unknown_keys(contract.to_json())) == contract


def with_unknown_keys(value):
    """Return the same JSON with an additional key in every object that is a contract."""
    if isinstance(value, dict):
        is_mapping = {"size", "counts"} <= value.keys() or set(value) == {"embed"} or not value
        return {key: with_unknown_keys(item) for key, item in value.items()} | ({} if is_mapping else {"later": [1]})
    if isinstance(value, (list, tuple)):
        return [with_unknown_keys(item) for item in value]
    return value


def test_keys_that_an_earlier_release_did_not_send_take_their_default():
    """Missing keys take their default; only fields without a default are required."""
    sent = {"version": 1, "image": {"url": "/x.png"}, "image_wh": [6, 4]}
    assert SegmentJob.from_json(sent) == SegmentJob(ImageRef("/x.png"), (6, 4))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"image_wh": None}, "image_wh"),
        ({"image_wh": ["six", 4]}, "image_wh.0"),
        ({"image_wh": [6, 4, 3]}, "image_wh"),
        ({"image": {"task_id": 1}}, "image.url"),
        ({"points": [{"x_px": "left", "y_px": 1}]}, "points.0.x_px"),
    ],
)
def test_missing_and_wrong_values_are_named(change, named):
    """The error names the path of a missing key without a default, and of a value of another type."""
    data = {**SegmentJob(IMAGE, (6, 4)).to_json(), **change}
    data = {key: value for key, value in data.items() if value is not None}
    with pytest.raises(ValueError, match=rf"SegmentJob cannot be read \({named}: .*different releases"):
        SegmentJob.from_json(data)


def test_id_depends_on_content_and_kind_only():
    job = SegmentJob(IMAGE, (6, 4), (PromptPoint(1.0, 2.0),))
    assert job.content_id() == dataclasses.replace(job).content_id()
    assert job.content_id() != dataclasses.replace(job, points=(PromptPoint(1.0, 2.5),)).content_id()
    assert ImageRef("x").content_id() != WarmJob(ImageRef("x")).content_id()
    assert len(job.content_id()) == 40
