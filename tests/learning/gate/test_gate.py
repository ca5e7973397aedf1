"""Claims about the gate's criteria: what passes, what does not, and the reported sentence."""

from __future__ import annotations

import dataclasses
import json
import random

import pytest

from learning.gate.evaluate import FieldOutcome, Latency
from learning.gate.gate import Bounds, Paired, Verdict, judge, share_right
from learning.report.version_history import failed_criteria

FAST = Latency(1.0, 1.0, 8, 3, "cpu")


def outcomes(right: list[bool], *, field: str = "category", confidence: float = 0.9) -> tuple[FieldOutcome, ...]:
    """Return one outcome per entry, three per image."""
    return tuple(
        FieldOutcome(f"image{idx // 3}", idx, idx, "r", "Object", field, "category", ("roof",),
                ("roof",) if is_right else ("wall",), confidence if is_right else 0.1, is_right, float(is_right),
                True, False)
        for idx, is_right in enumerate(right)
    )  # fmt: skip


def share(right: float, total: int = 300, seed: int = 0) -> list[bool]:
    """Draw which answers are correct, for this expected share."""
    generator = random.Random(seed)
    return [generator.random() < right for _ in range(total)]


SAME = Paired(outcomes(share(0.9)), outcomes(share(0.9)))
BETTER = Paired(outcomes(share(0.9)), outcomes(share(0.5, seed=1)))


def failed(verdict: Verdict) -> list[tuple[str, str | None]]:
    """Return the criteria that did not pass, with their fields."""
    return [(each.name, each.field) for each in verdict.criteria if not each.passed]


def test_clear_improvement_passes_and_is_json():
    """A clear improvement passes, and the verdict survives JSON."""
    verdict = judge(BETTER, SAME, FAST)
    assert verdict.passed
    data = json.loads(json.dumps(verdict.to_json()))
    better = data["criteria"][0]
    assert better["name"] == "better"
    assert better["value"] == pytest.approx(better["detail"]["exact"]["gain"]["low"])
    assert 0.3 < better["detail"]["exact"]["gain"]["value"] < 0.5


def test_candidate_trained_on_shuffled_corrections_does_not_pass():
    """A candidate with fewer correct held-out answers fails in total and in the field."""
    shuffled = Paired(outcomes(share(0.2, seed=2)), outcomes(share(0.6, seed=3)))
    assert failed(judge(shuffled, SAME, FAST))[:2] == [("better", None), ("field", "category")]


def described(similarity: float, *, is_right: bool) -> tuple[FieldOutcome, ...]:
    """Return descriptions that all have the same similarity to the expected value."""
    return tuple(
        dataclasses.replace(each, field="words", role="detailed_description", is_right=is_right, similarity=similarity)
        for each in outcomes([True] * 300)
    )


def test_a_description_counts_by_its_words_and_not_word_for_word():
    """Descriptions are scored by similarity: another wording with the same facts is not worse."""
    rival = (*described(1.0, is_right=True)[:60], *described(0.8, is_right=False)[60:])
    nearer = Paired(described(0.9, is_right=False), rival)
    assert judge(nearer, SAME, FAST).passed
    assert ("field", "words") in failed(judge(Paired(described(0.6, is_right=False), rival), SAME, FAST))
    farther = Paired(described(0.78, is_right=False), described(0.8, is_right=False))
    assert failed(judge(BETTER, farther, FAST)) == [("base", None)]  # two points, though not one exact answer is lost


def test_calibration_is_asked_of_what_is_right_or_wrong():
    """Descriptions have no calibration criterion."""
    wrong_and_sure = Paired(described(0.9, is_right=False), described(0.8, is_right=False))
    assert [each.name for each in judge(wrong_and_sure, SAME, FAST).criteria].count("calibration") == 0


def test_no_difference_and_luck_do_not_pass():
    """Equal outcomes fail, and of a hundred candidates as good as the champion at most ten pass."""
    assert failed(judge(SAME, SAME, FAST)) == [("better", None)]
    pairs = [Paired(outcomes(share(0.7, 150, seed)), outcomes(share(0.7, 150, seed + 1))) for seed in range(0, 200, 2)]
    lucky = sum(pair.gain(lambda outcome: float(outcome.is_right)).low > 0 for pair in pairs)
    assert lucky <= 10


@pytest.mark.parametrize("num_images", [1, 3, 9])
def test_few_corrections_have_no_easier_rule(num_images):
    """With fewer than ten images, only `better` fails, whether all answers are correct or none."""
    total = 3 * num_images
    assert failed(judge(Paired(outcomes([True] * total), outcomes([False] * total)), SAME, FAST)) == [("better", None)]
    assert failed(judge(Paired(outcomes([False] * total), outcomes([True] * total)), SAME, FAST)) == [("better", None)]


def test_one_field_may_not_pay_for_another():
    """A loss in one field fails even if another field gains more."""
    category = Paired(outcomes(share(0.95)), outcomes(share(0.3, seed=1)))
    color = Paired(outcomes(share(0.5, seed=4), field="color"), outcomes(share(0.9, seed=5), field="color"))
    both = Paired(category.candidate + color.candidate, category.champion + color.champion)
    assert failed(judge(both, SAME, FAST)) == [("field", "color")]


WORDS = ("car", "boat", "house", "tree")


def said(words: list[str], truth: list[str]) -> tuple[FieldOutcome, ...]:
    """Return outcomes for categories that differ from region to region."""
    return tuple(
        dataclasses.replace(
            each, expected=(right,), given=(word,), is_right=word == right, similarity=float(word == right)
        )
        for each, word, right in zip(outcomes([True] * len(truth)), words, truth, strict=True)
    )


def test_frequencies_alone_are_not_enough():
    """A candidate that only learned how frequent each value is fails `region`."""
    drawn = random.Random(5)
    truth = drawn.choices(WORDS, (5, 2, 2, 1), k=300)
    frequent, unheard = said(["car"] * 300, truth), said(["cat"] * 300, truth)
    assert failed(judge(Paired(frequent, unheard), SAME, FAST)) == [("region", None)]
    shuffled = said(drawn.sample(truth, 300), truth)
    assert failed(judge(Paired(shuffled, unheard), SAME, FAST)) == [("region", None)]
    seen = said([right if drawn.random() < 0.4 else "car" for right in truth], truth)
    assert judge(Paired(seen, unheard), SAME, FAST).criteria[2].passed


def test_regions_of_other_labels_are_no_comparison():
    """Answers are compared only with regions of the same label."""
    truth = ["car", "wheel"] * 150
    both = [
        tuple(
            dataclasses.replace(each, label=("Object", "Part")[idx % 2]) for idx, each in enumerate(said(words, truth))
        )
        for words in (truth, ["cat"] * 300)
    ]
    found = next(each for each in judge(Paired(*both), SAME, FAST).criteria if each.name == "region")
    assert found.passed
    assert found.says == "not applicable: regions of other images have the same answers"


@pytest.mark.parametrize(("lost", "passes"), [(1, True), (2, False)])
def test_base_set_may_lose_one_point(lost, passes):
    """A loss of one point on the base set passes, two points fail."""
    right = [True] * 100
    worse = [False] * lost + [True] * (100 - lost)
    verdict = judge(BETTER, Paired(outcomes(worse), outcomes(right)), FAST)
    assert verdict.passed is passes
    assert failed(verdict) == ([] if passes else [("base", None)])


def test_small_losses_do_not_add_up():
    """The loss on the base set also counts from the best earlier champion."""
    worse, right = [False] * 3 + [True] * 197, [False] * 2 + [True] * 198
    base = Paired(outcomes(worse), outcomes(right))
    assert failed(judge(BETTER, base, FAST, best_before=0.99)) == []
    verdict = judge(BETTER, base, FAST, best_before=1.0)
    assert failed(verdict) == [("base", None)]
    assert "-1.5 points compared with the best champion" in next(e.says for e in verdict.criteria if e.name == "base")
    assert share_right(verdict.to_json(), "base", "candidate") == pytest.approx(0.985)
    assert share_right(judge(BETTER, None, FAST).to_json(), "base", "champion") is None


def test_without_base_set_or_held_out_set_nothing_passes():
    """A missing base set or an empty held-out set fails, with the reason."""
    assert failed(judge(BETTER, None, FAST)) == [("base", None)]
    nothing = judge(Paired((), ()), SAME, FAST)
    assert failed(nothing)[0] == ("better", None)
    assert "no image is held out" in nothing.criteria[0].says


def test_overconfidence_is_seen():
    """Full confidence with a third of wrong answers is a calibration error of a third, and fails."""
    sure = tuple(dataclasses.replace(each, confidence=1.0) for each in outcomes(share(0.66)))
    verdict = judge(Paired(sure, outcomes(share(0.3, seed=1))), SAME, FAST)
    assert failed(verdict) == [("calibration", "category")]
    assert next(each.value for each in verdict.criteria if each.name == "calibration") == pytest.approx(0.34, abs=0.05)


def test_one_answer_outside_its_list_fails():
    """One answer that is not in its closed list fails `valid`."""
    one_out = dataclasses.replace(BETTER.candidate[0], is_closed=True, is_valid=False)
    verdict = judge(Paired((one_out, *BETTER.candidate[1:]), BETTER.champion), SAME, FAST)
    assert failed(verdict) == [("valid", None)]


@pytest.mark.parametrize(("seconds", "passes"), [(1.09, True), (1.11, False)])
def test_a_tenth_slower_is_the_limit(seconds, passes):
    """A candidate that is 9 % slower passes, one that is 11 % slower fails."""
    assert judge(BETTER, SAME, dataclasses.replace(FAST, candidate_s=seconds)).passed is passes


def test_verdict_of_another_release_is_read():
    """Unknown keys in a stored verdict are ignored; criteria, details and scores that are missing give no score."""
    verdict = {
        "passed": False,
        "signed_by": "a key that this release does not know",
        "criteria": [
            {"name": "base", "passed": True, "detail": {"score": {"candidate": {"value": 0.9, "median": 0.8}}}},
            {"name": "better", "passed": False, "weight": 2},
        ],
    }
    assert share_right(verdict, "base", "candidate") == 0.9
    assert share_right(verdict, "base", "champion") is None
    assert share_right(verdict, "better", "candidate") is None
    assert share_right({"passed": True}, "better", "candidate") is None
    assert failed_criteria(verdict) == ("better",)
    assert failed_criteria({"passed": True}) == ()


def test_outcomes_of_different_exams_are_refused():
    """Outcomes of different questions cannot be paired."""
    with pytest.raises(ValueError, match="different questions"):
        Paired(outcomes([True, True]), outcomes([True]))


def test_bounds_can_be_set():
    """Other bounds change the verdict."""
    pair = Paired(outcomes([False] * 5 + [True] * 95), outcomes([True] * 100))
    assert judge(BETTER, pair, FAST, Bounds(base_loss=0.05)).passed
