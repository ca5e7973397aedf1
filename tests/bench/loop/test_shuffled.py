"""Claims about the control's corrections: they are the same ones, at other regions."""

from __future__ import annotations

from collections import Counter

from bench.loop.shuffled import shuffled
from demo.scenes import BASE_SEEDS
from demo.truth.sets import truth_submissions
from label_config.ready_configs import BITMASK as CONFIG

TRUE = truth_submissions(range(BASE_SEEDS.start, BASE_SEEDS.start + 5), CONFIG.read_text(encoding="utf-8"), 7)


def test_no_answer_is_lost_and_most_are_wrong() -> None:
    wrong = shuffled(TRUE, 1)
    for is_part in (False, True):
        before, after = (
            [repr(region.texts) for region in each.regions if region.is_part is is_part] for each in (TRUE, wrong)
        )
        assert Counter(before) == Counter(after)
    moved = sum(a.texts != b.texts for a, b in zip(TRUE.regions, wrong.regions, strict=True))
    assert moved > 0.8 * len(TRUE.regions)


def test_masks_and_places_stay() -> None:
    for before, after in zip(TRUE.regions, shuffled(TRUE, 1).regions, strict=True):
        assert (after.task, after.region, after.mask, after.parent) == (
            before.task, before.region, before.mask, before.parent,
        )  # fmt: skip
        assert after.suggestion == after.texts  # what was accepted is still accepted, somewhere else


def test_the_seed_decides() -> None:
    assert shuffled(TRUE, 1) == shuffled(TRUE, 1)
    assert shuffled(TRUE, 1) != shuffled(TRUE, 2)
