"""Claims about the figures of the report, compared with numbers counted by hand."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from job_queue.contracts import ImageRef
from job_queue.mask_codec import encode_mask
from learning.report.figures import SeenRegion, edit_share, figures_of
from learning.submitted.regions import SubmittedRegion

MASK = np.ones((4, 6), np.bool_)


def seen(region: str, texts: dict, suggestion: dict | None, *, annotation: int = 1, is_blind: bool = False, **more):
    """Return one region; values and suggestions are given as single texts."""
    suggested = None if suggestion is None else {name: [word] for name, word in suggestion.items()}
    values = {
        "task": annotation, "annotation": annotation, "region": region, "annotator": 1, "image": "i.png",
        "image_wh": (6, 4), "mask": encode_mask(MASK), "bbox": (0, 0, 6, 4), "area": 24, "label": "Object",
        "parent": None, "is_part": False, "origin": "prediction", "score": None, "suggestion": suggested,
        "texts": {name: [word] for name, word in texts.items()}, "model_version": "v1@aa", **more,
    }  # fmt: skip
    return SeenRegion(SubmittedRegion(**values), ImageRef("data:"), is_blind)


def test_corrections_are_counted_per_field_and_version():
    """Corrections are counted per field and version, capitals are ignored, versions are ordered by first use."""
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
    """A value that was added or removed counts as a correction."""
    figures = figures_of([
        seen("a", {"category": "car", "color": "red"}, {"category": "car"}),
        seen("b", {"category": "car"}, {"category": "car", "color": "blue"}),
    ])  # fmt: skip
    color = next(each for each in figures.rounds[0].fields if each.field == "color")
    assert (color.n, color.corrected, color.edit_share) == (2, 2, 1.0)


def test_blind_and_hand_drawn_regions_are_not_corrections():
    """Blind regions measure accuracy; hand-drawn ones are only counted."""
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
    """With nine of ten accepted at confidence 0.95 the calibration error is 0.05."""
    figures = figures_of([
        seen(str(idx), {"category": "car" if idx else "bus"}, {"category": "car"}, confidence={"category": 0.95})
        for idx in range(10)
    ])  # fmt: skip
    everything, category = figures.reliability
    assert everything.field is None
    assert [(each.n, each.right) for each in category.bins] == [(10, 0.9)]
    assert category.calibration_error == pytest.approx(0.05)


def test_seconds_per_region_are_per_annotation():
    """It is the median over annotations of lead time per region; annotations without lead time do not count."""
    figures = figures_of([
        *(seen(str(idx), {"category": "car"}, {"category": "car"}, lead_time_s=30.0) for idx in range(3)),
        seen("x", {"category": "car"}, {"category": "car"}, annotation=2, lead_time_s=8.0),
        seen("y", {"category": "car"}, {"category": "car"}, annotation=3),
    ])  # fmt: skip
    assert (figures.rounds[0].seconds_per_region, figures.rounds[0].timed_annotations) == (9.0, 2)


def test_arms_of_the_queue_by_what_there_was_to_correct():
    """Corrections per 100 regions are computed for each arm; with one arm there is no comparison."""
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
    """The worst mistakes have high confidence and large changes."""
    figures = figures_of([
        seen("near", {"category": "cars"}, {"category": "car"}, confidence={"category": 0.99}),
        seen("unsure", {"category": "tree"}, {"category": "bus"}, confidence={"category": 0.2}),
        seen("sure", {"category": "tree"}, {"category": "bus"}, confidence={"category": 0.9}),
    ], num_worst=2)  # fmt: skip
    assert [each.region for each in figures.worst] == ["sure", "near"]


def test_nothing_is_no_error_and_everything_is_json():
    """No regions give empty figures, and all figures are JSON."""
    assert figures_of([]).rounds == ()
    assert json.loads(json.dumps(figures_of([seen("a", {"c": "x"}, {"c": "y"})]).to_json()))["counts"]["corrected"] == 1


@pytest.mark.parametrize(
    ("before", "after", "share"),
    [("roof", "rooftop", 3 / 7), ("", "abc", 1.0), ("abc", "", 1.0), ("kitten", "sitting", 3 / 7), ("a", "a", 0.0)],
)
def test_edit_share(before, after, share):
    """It is the number of edits divided by the length of the longer text."""
    assert edit_share(before, after) == pytest.approx(share)


def plain_distance(a: str, b: str) -> int:
    """Return the Levenshtein distance by the plain dynamic program."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        row, above = [i], row
        for j, y in enumerate(b, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (x != y)))
    return row[-1]


@given(st.text("abc", max_size=12), st.text("abc", max_size=12))
def test_edit_share_equals_the_textbook(a, b):
    """It equals the plain dynamic program on random texts."""
    longest = max(len(a), len(b))
    assert edit_share(a, b) == pytest.approx(plain_distance(a, b) / longest if longest else 0.0)
