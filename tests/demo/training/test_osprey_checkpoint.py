"""Claims about the committed osprey-nano, on scenes that neither its training nor its own evaluation used."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

import demo
from demo.scenes import EVAL_SEEDS, make_scene
from demo.training.osprey.__main__ import HELD_OUT_SEEDS
from demo.training.osprey.osprey_eval import FIELDS, judge
from demo.training.osprey.osprey_questions import areas_of
from osprey_model import Osprey, Question, RegionRequest

CHECKPOINT = Path(demo.__file__).parent / "checkpoints" / "osprey-nano"
SEEDS = range(950_000, 950_004)
PARTS_PER_SCENE = 5
# The shares the project promises on 200 scenes; four scenes must reach them with room for one miss more.
PROMISED = {"category": 0.95, "part": 0.90, "color": 0.90, "material": 0.90, "short": 0.85, "detailed": 0.80}


@pytest.fixture(scope="module")
def osprey() -> Osprey:
    return Osprey.from_pretrained(CHECKPOINT)


def test_answers_on_unseen_scenes_are_as_good_as_promised(osprey):
    assert not set(SEEDS) & {*HELD_OUT_SEEDS, *EVAL_SEEDS}
    verdicts: dict[str, list[bool]] = defaultdict(list)
    for seed in SEEDS:
        scene = make_scene(seed)
        areas = areas_of(scene)[: len(scene.objects) + PARTS_PER_SCENE]
        questions = tuple(Question(q.text, q.form, max_new_tokens=q.max_new_tokens) for q in FIELDS.values())
        answers = osprey.describe(scene.image, [RegionRequest((area.mask,), questions) for area in areas])
        for area, row in zip(areas, answers, strict=True):
            for field, answer in zip(FIELDS, row, strict=True):
                verdicts[field].append(judge(scene, area, field, answer.text)[field])
    shares = {field: sum(found) / len(found) for field, found in verdicts.items()}
    assert {field: share for field, share in shares.items() if share < PROMISED[field]} == {}, shares


def test_a_closed_list_picks_the_material(osprey):
    scene = make_scene(SEEDS[1])
    obj = scene.objects[0]
    choices = ("checkered", "dotted", "metal", "plastic", "striped", "wooden")
    question = Question("What is the material of {region}?", "part", choices=choices)
    ((answer,),) = osprey.describe(scene.image, [RegionRequest((obj.mask,), (question,))])
    assert answer.values == (obj.material,)


def test_the_checkpoint_is_small_and_says_what_it_is_for():
    assert (CHECKPOINT / "model.safetensors").stat().st_size < 25e6
    assert "not photographs" in (CHECKPOINT / "README.md").read_text(encoding="utf-8")
