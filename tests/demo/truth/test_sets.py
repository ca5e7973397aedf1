"""Replay and base set are ordinary scenes in plain words, and no scene is in two sets."""

from __future__ import annotations

from itertools import combinations, islice
from pathlib import Path

from bench.loop.plan import MOST_ROUNDS, NUM_SEEDS, Plan
from bench.loop.shuffled import shuffled
from demo.scenes import BASE_SEEDS, DEMO_SEEDS, EVAL_SEEDS, REPLAY_SEEDS, TEAM_SEEDS, TRAIN_SEEDS
from demo.truth.sample_sets import write_sample_sets
from demo.truth.sets import truth_submissions, write_truth_set
from label_config.ready_configs import BITMASK as CONFIG
from learning.export.version import read_export
from learning.gate.exam import read_base_exam, read_exam
from osprey_model.data.mixture import read_data_config

LABEL_CONFIG = CONFIG.read_text(encoding="utf-8")
RANGES = (TRAIN_SEEDS, EVAL_SEEDS, DEMO_SEEDS, TEAM_SEEDS, REPLAY_SEEDS, BASE_SEEDS)


def test_no_two_ranges_of_seeds_meet() -> None:
    for one, other in combinations(RANGES, 2):
        assert one.stop <= other.start or other.stop <= one.start


def test_rounds_and_simulations_share_no_scene(tmp_path: Path) -> None:
    last = Plan(tmp_path, rounds=MOST_ROUNDS, regions=10_000, seed=NUM_SEEDS - 1)
    plans = (Plan(tmp_path, rounds=MOST_ROUNDS, seed=0), Plan(tmp_path, rounds=MOST_ROUNDS, seed=1), last)
    seen: set[int] = set()
    for plan in plans:
        for idx in range(MOST_ROUNDS + 1):
            seeds = set(islice(plan.team_seeds(idx), 10_000))
            assert not seeds & seen
            seen |= seeds
    assert all(seed in TEAM_SEEDS for seed in seen)
    assert all(seed in REPLAY_SEEDS for seed in last.replay_seeds())
    assert all(seed in BASE_SEEDS for seed in last.base_seeds())


def test_a_set_can_be_learned_from_and_examined(tmp_path: Path) -> None:
    seeds = range(BASE_SEEDS.start, BASE_SEEDS.start + 2)
    version = write_truth_set(tmp_path / "exports", tmp_path / "cache", seeds, LABEL_CONFIG, 900_002)
    export, exam = read_export(version.path), read_exam(version.path, None)
    assert not export.problems
    assert exam.num_regions == len(export.regions)
    [file] = read_data_config(version.path / "data.json")
    assert file.type == "OspreyQuestions"
    asked = [
        question["text"] for entry in export.entries["train/click_questions.json"] for question in entry["questions"]
    ]
    # Colour and material are asked one by one, as at a click, because both are known to answer their own question.
    assert any("color" in text for text in asked)
    assert any("material" in text for text in asked)
    again = write_truth_set(tmp_path / "exports", tmp_path / "cache", seeds, LABEL_CONFIG, 900_002)
    assert not again.is_new


def test_sample_sets_are_made_once(tmp_path: Path) -> None:
    """Links to versions, left alone where they are; what a kill left out is made by the next call."""
    few = {
        "base": (900_012, BASE_SEEDS[50_000:50_001]),
        "replay": (900_011, REPLAY_SEEDS[50_000:50_001]),
    }
    write_sample_sets(tmp_path, {"base": few["base"]})
    made = (tmp_path / "base").readlink()
    write_sample_sets(tmp_path, few)
    assert (tmp_path / "base").readlink() == made
    assert read_base_exam(tmp_path / "base").name == made.name
    assert read_data_config(tmp_path / "replay" / "data.json")
    write_sample_sets(tmp_path, {"base": (900_013, BASE_SEEDS[50_001:50_002])})
    assert (tmp_path / "base").readlink() == made  # a base set is frozen


def test_the_base_set_has_only_terms_of_the_demo_world() -> None:
    seeds = range(BASE_SEEDS.start, BASE_SEEDS.start + 40)
    found = repr([region.texts for region in truth_submissions(seeds, LABEL_CONFIG, 1).regions])
    assert "roof" in found
    assert not any(word in found for word in ("rooftop", "snowman", "windmill"))


def test_shuffling_does_not_touch_the_images() -> None:
    true = truth_submissions(range(BASE_SEEDS.start, BASE_SEEDS.start + 2), LABEL_CONFIG, 1)
    assert shuffled(true, 0).images == true.images
