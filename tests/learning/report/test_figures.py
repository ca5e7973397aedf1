"""The figures of the report, counted by hand."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from job_queue.contracts import ImageRef
from job_queue.mask_codec import encode_mask
from learning.report.figures import SeenRegion, figures_of
from learning.submitted.regions import SubmittedRegion

MASK = np.ones((4, 6), np.bool_)


def seen(region: str, texts: dict, suggestion: dict | None, *, annotation: int = 1, is_blind: bool = False, **more):
    """One region; texts and suggestion as single words."""
    suggested = None if suggestion is None else {name: [word] for name, word in suggestion.items()}
    values = {
        "task": annotation, "annotation": annotation, "region": region, "annotator": 1, "image": "i.png",
        "image_wh": (6, 4), "mask": encode_mask(MASK), "bbox": (0, 0, 6, 4), "area": 24, "label": "Object",
        "parent": None, "is_part": False, "origin": "prediction", "score": None, "suggestion": suggested,
        "texts": {name: [word] for name, word in texts.items()}, "model_version": "v1@aa", **more,
    }  # fmt: skip
    return SeenRegion(SubmittedRegion(**values), ImageRef("data:"), is_blind)


def test_corrections_are_counted_per_field_and_version():
    """Two of three categories kept, capitals do not count; the second version comes after the first."""
    figures = figures_of([
        seen("a", {"category": "roof", "color": "red"}, {"category": "Roof.", "color": "red"}, updated_at="2026-01-01"),
        seen("b", {"category": "rooftop"}, {"category": "roof"}, updated_at="2026-01-02"),
        seen("c", {"category": "wall"}, {"category": "wall"}, updated_at="2026-01-02"),
        seen("d", {"category": "car"}, {"category": "car"}, annotation=2, model_version="v2", updated_at="2026-02-01"),
    ])  # fmt: skip
    assert [each.model_version for each in figures.rounds] == ["v1@aa", "v2"]
    first = {each.field: each for each in figures.rounds[0].fields}
    assert (first["category"].n, first["category"].corrected) == (3, 1)
    assert first["category"].corrections_per_100 == pytest.approx(100 / 3)
    assert first["category"].edit_share_of_corrected == pytest.approx(3 / 7)
    assert first["category"].edit_share == pytest.approx(1 / 7)
    assert figures.rounds[0].corrections_per_100 == pytest.approx(100 / 3)
    assert figures.rounds[1].corrections_per_100 == 0
    assert [(each.suggested, each.kept, each.count) for each in figures.confusions] == [("roof", "rooftop", 1)]


def test_words_added_or_deleted_are_corrections():
    figures = figures_of([
        seen("a", {"category": "car", "color": "red"}, {"category": "car"}),
        seen("b", {"category": "car"}, {"category": "car", "color": "blue"}),
    ])  # fmt: skip
    color = next(each for each in figures.rounds[0].fields if each.field == "color")
    assert (color.n, color.corrected, color.edit_share) == (2, 2, 1.0)


def test_blind_and_hand_drawn_regions_are_not_corrections():
    """Blind ones measure accuracy beside the share kept where words were shown; drawn ones are only counted."""
    figures = figures_of([
        seen("a", {"category": "car"}, {"category": "car"}),
        seen("b", {"category": "bus"}, {"category": "car"}, is_blind=True),
        seen("c", {"category": "car"}, {"category": "car"}, is_blind=True),
        seen("d", {"category": "tree"}, None),
    ])  # fmt: skip
    assert figures.rounds[0].corrections_per_100 == 0
    assert [(each.blind_n, each.right, each.shown_n, each.kept) for each in figures.blind] == [(2, 0.5, 1, 1.0)]
    counts = figures.counts
    assert (counts["regions"], counts["with_suggestion"], counts["blind"], counts["drawn_by_hand"]) == (4, 1, 2, 1)


def test_reliability_by_confidence():
    """Nine of ten kept at 0.95: an error of 0.05."""
    figures = figures_of([
        seen(str(idx), {"category": "car" if idx else "bus"}, {"category": "car"}, confidence={"category": 0.95})
        for idx in range(10)
    ])  # fmt: skip
    everything, category = figures.reliability
    assert everything.field is None
    assert [(each.n, each.right) for each in category.bins] == [(10, 0.9)]
    assert category.calibration_error == pytest.approx(0.05)


def test_seconds_per_region_are_per_annotation():
    """Median of 30 s over three regions and 8 s over one; an annotation without a lead time says nothing."""
    figures = figures_of([
        *(seen(str(idx), {"category": "car"}, {"category": "car"}, lead_time_s=30.0) for idx in range(3)),
        seen("x", {"category": "car"}, {"category": "car"}, annotation=2, lead_time_s=8.0),
        seen("y", {"category": "car"}, {"category": "car"}, annotation=3),
    ])  # fmt: skip
    assert (figures.rounds[0].seconds_per_region, figures.rounds[0].timed_annotations) == (9.0, 2)


def test_arms_of_the_queue_by_what_there_was_to_correct():
    """Two corrected fields in the one region of the ordered arm, one in two of the drawn arm; bounds over tasks."""
    ordered = seen("a", {"category": "cat", "color": "red"}, {"category": "dog", "color": "blue"})
    drawn = [
        seen("b", {"category": "cat"}, {"category": "cat"}, annotation=2),
        seen("c", {"category": "cat"}, {"category": "dog"}, annotation=3),
        seen("d", {"category": "cat"}, {"category": "dog"}, annotation=4, is_blind=True),
    ]
    arms = [("uncertainty", ordered), *(("random", each) for each in drawn)]
    found = figures_of([dataclasses.replace(each, arm=arm) for arm, each in arms]).arms
    assert [(each.arm, each.tasks, each.regions, each.corrections_per_100.value) for each in found] == [
        ("random", 2, 2, 50.0),
        ("uncertainty", 1, 1, 200.0),
    ]
    assert figures_of([ordered]).arms == ()


def test_worst_mistakes_are_sure_and_far_off():
    figures = figures_of([
        seen("near", {"category": "cars"}, {"category": "car"}, confidence={"category": 0.99}),
        seen("unsure", {"category": "tree"}, {"category": "bus"}, confidence={"category": 0.2}),
        seen("sure", {"category": "tree"}, {"category": "bus"}, confidence={"category": 0.9}),
    ], num_worst=2)  # fmt: skip
    assert [each.region for each in figures.worst] == ["sure", "near"]


def test_nothing_is_no_error_and_everything_is_json():
    assert figures_of([]).rounds == ()
    assert json.loads(json.dumps(figures_of([seen("a", {"c": "x"}, {"c": "y"})]).to_json()))["counts"]["corrected"] == 1
