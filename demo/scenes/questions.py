"""Questions about a scene in the styles of Osprey-724K, with the right answers.

A `Dialogue` is one entry of such a file: `<regionK>` in a question is `regions[K - 1]`. A positive/negative dialogue
names every region exactly once and in order, as its reader requires.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from demo.scenes.catalog import CATALOG
from demo.scenes.grammar import RELATION_PHRASES, Region
from demo.scenes.palette import COLORS
from demo.scenes.scene import Scene, SceneObject, ScenePart
from demo.scenes.truth import RELATIONS


@dataclass(frozen=True)
class Turn:
    """A question with `<regionK>` placeholders and its answer."""

    question: str
    answer: str


@dataclass(frozen=True)
class Dialogue:
    """Turns about `regions` of one scene."""

    regions: tuple[Region, ...]
    turns: tuple[Turn, ...]


def short_form_questions(scene: Scene) -> tuple[Dialogue, ...]:
    """Ask one-word questions: colour, material, kind, part, and yes/no on colours and relations."""
    rng = np.random.default_rng((scene.seed, 1))
    dialogues = []
    for thing in scene.objects:
        dialogues.append(
            Dialogue(
                (thing,),
                (
                    Turn("What is <region1>?", thing.category),
                    Turn("What is the color of <region1>?", thing.color),
                    Turn("What is the material of <region1>?", thing.material),
                    _color_check(thing, rng),
                ),
            )
        )
        dialogues += [
            Dialogue(
                (part,),
                (
                    Turn("What part is <region1>?", part.name),
                    Turn("What is the color of <region1>?", part.color),
                    Turn("What is the material of <region1>?", part.material),
                    _color_check(part, rng),
                ),
            )
            for part in _all_parts(thing)
        ]
        if thing.relations:
            dialogues.append(_relation_check(scene, thing, rng))
    return tuple(dialogues)


def positive_negative_questions(scene: Scene) -> tuple[Dialogue, ...]:
    """Ask about all objects in one dialogue: half of the questions name the right category.

    Half of the wrong names are categories of other objects in the picture, which are harder.
    """
    rng = np.random.default_rng((scene.seed, 2))
    turns = []
    for number, thing in enumerate(scene.objects, start=1):
        asked = thing.category
        if rng.random() < 0.5:
            in_view = sorted({other.category for other in scene.objects} - {thing.category})
            anywhere = sorted(set(CATALOG) - {thing.category})
            pool = in_view if in_view and rng.random() < 0.5 else anywhere
            asked = pool[int(rng.integers(len(pool)))]
        wording = (
            f"Is the category of <region{number}> {asked}?",
            f"{asked.capitalize()} is the category of <region{number}>, right?",
        )[int(rng.integers(2))]
        right = asked == thing.category
        turns.append(
            Turn(
                wording,
                f"Yes, there is a {asked} in the region." if right else f"No, there is no {asked} in the region.",
            )
        )
    return (Dialogue(scene.objects, tuple(turns)),)


def _all_parts(thing: SceneObject) -> list[ScenePart]:
    return [piece for part in thing.parts for piece in (part, *part.subparts)]


def _color_check(region: Region, rng: np.random.Generator) -> Turn:
    """Ask whether a region has a colour; the answer is yes in half of the cases."""
    others = [name for name in COLORS if name != region.color]
    asked = region.color if rng.random() < 0.5 else others[int(rng.integers(len(others)))]
    return Turn(f"Is <region1> {asked}?", "yes" if asked == region.color else "no")


def _relation_check(scene: Scene, thing: SceneObject, rng: np.random.Generator) -> Dialogue:
    """Ask about the canonical neighbour, so that the answer never depends on a few pixels."""
    relation, other_idx = thing.relations[0]
    opposite = {"left": "right", "right": "left", "above": "below", "below": "above"}[relation]
    asked = relation if rng.random() < 0.5 else opposite
    phrase = next(RELATION_PHRASES[name] for name in RELATIONS if name == asked)
    return Dialogue(
        (thing, scene.objects[other_idx]),
        (Turn(f"Is <region1> {phrase} <region2>?", "yes" if asked == relation else "no"),),
    )
