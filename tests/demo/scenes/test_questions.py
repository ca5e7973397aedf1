"""Claims about questions: the answers are right, and the rules of their files are kept."""

from __future__ import annotations

import re

import pytest

from demo.scenes import Scene, SceneObject, make_scene
from demo.scenes.questions import positive_negative_questions, short_form_questions


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [make_scene(seed, (256, 192)) for seed in range(8_000, 8_040)]


def test_positive_negative_names_every_region_once_and_in_order(scenes: list[Scene]) -> None:
    for scene in scenes:
        for dialogue in positive_negative_questions(scene):
            named = re.findall(r"<region(\d+)>", " ".join(turn.question for turn in dialogue.turns))
            assert named == [str(number) for number in range(1, len(dialogue.regions) + 1)]


def test_positive_negative_answers_are_right_and_balanced(scenes: list[Scene]) -> None:
    positive = total = 0
    for scene in scenes:
        for dialogue in positive_negative_questions(scene):
            for region, turn in zip(dialogue.regions, dialogue.turns, strict=True):
                assert isinstance(region, SceneObject)
                said_yes = turn.answer.startswith("Yes")
                assert said_yes == (region.category in turn.question.lower())
                positive, total = positive + said_yes, total + 1
    assert 0.35 < positive / total < 0.65


def test_short_form_answers_are_right(scenes: list[Scene]) -> None:
    seen = set()
    for scene in scenes:
        for dialogue in short_form_questions(scene):
            region = dialogue.regions[0]
            for turn in dialogue.turns:
                if turn.question == "What is the color of <region1>?":
                    assert turn.answer == region.color
                elif turn.question == "What is the material of <region1>?":
                    assert turn.answer == region.material
                elif turn.question.startswith("Is ") and len(dialogue.regions) == 1:
                    assert (turn.answer == "yes") == (region.color in turn.question)
                elif len(dialogue.regions) == 2:
                    (x, y), (other_x, other_y) = (other.center_px for other in dialogue.regions)
                    holds = {"left": x < other_x, "right": x > other_x, "above": y < other_y, "below": y > other_y}
                    asked = next(name for name in holds if name in turn.question)
                    assert (turn.answer == "yes") == holds[asked]
                seen.add(re.sub(r"\d", "", turn.question))
    assert len(seen) > 8


def test_questions_depend_on_nothing_but_the_scene(scenes: list[Scene]) -> None:
    again = make_scene(scenes[0].seed, (256, 192))
    for ask in (short_form_questions, positive_negative_questions):
        assert [d.turns for d in ask(scenes[0])] == [d.turns for d in ask(again)]
