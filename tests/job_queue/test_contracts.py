"""Contracts survive JSON, refuse other releases, and have ids that depend on content alone."""

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
    """What arrives equals what was sent, tuples and nested contracts included."""
    assert type(contract).from_json(json.loads(json.dumps(contract.to_json()))) == contract


@given(
    st.lists(st.tuples(st.floats(0, 1e4), st.floats(0, 1e4), st.booleans()), max_size=5),
    st.one_of(st.none(), st.tuples(*[st.floats(-1e4, 1e4)] * 4)),
)
def test_any_prompt_survives(points, box):
    """Property: no float, count or sign of a prompt is lost."""
    job = SegmentJob(IMAGE, (6, 4), tuple(PromptPoint(*point) for point in points), box)
    assert SegmentJob.from_json(json.loads(json.dumps(job.to_json()))) == job


def test_other_version_is_refused():
    with pytest.raises(ValueError, match=r"contract version 2 .* speaks version 1; restart"):
        WarmJob.from_json({**WarmJob(IMAGE).to_json(), "version": 2})


@pytest.mark.parametrize("change", [{"extra": 1}, {"image_wh": None}])
def test_unknown_and_missing_keys_are_named(change):
    data = {**SegmentJob(IMAGE, (6, 4)).to_json(), **change}
    data = {key: value for key, value in data.items() if value is not None}
    with pytest.raises(ValueError, match=r"extra|image_wh"):
        SegmentJob.from_json(data)


def test_id_depends_on_content_and_kind_only():
    job = SegmentJob(IMAGE, (6, 4), (PromptPoint(1.0, 2.0),))
    assert job.content_id() == dataclasses.replace(job).content_id()
    assert job.content_id() != dataclasses.replace(job, points=(PromptPoint(1.0, 2.5),)).content_id()
    assert ImageRef("x").content_id() != WarmJob(ImageRef("x")).content_id()
    assert len(job.content_id()) == 40
