"""The questions that osprey-nano is trained on, with the right answers.

Most are the product's own questions, in the exact words of `label_config.questions`. There are also short-form and
yes/no questions as in Osprey-724K, and a few about positions, which the last sentence of a detailed description needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from demo.scenes import CATALOG, Scene, SceneObject, ScenePart
from demo.scenes.grammar import detailed_description, short_description
from demo.scenes.questions import Dialogue, positive_negative_questions, short_form_questions
from demo.scenes.truth import centroid, place_in_picture
from label_config.questions import DEFAULT_QUESTIONS
from label_config.schema import FieldQuestion
from osprey_model.inputs.prompts import SUFFIX_SHORT_FORM, part_preamble, question_message
from osprey_model.inputs.tokenizer import REGION_PLACEHOLDER

Area = SceneObject | ScenePart
WHOLE = "whole"  # the part name of an object's own mask

(CATEGORY,) = DEFAULT_QUESTIONS["category"]
(PART,) = DEFAULT_QUESTIONS["part"]
COLOR, MATERIAL = DEFAULT_QUESTIONS["attribute"]
(SHORT,) = DEFAULT_QUESTIONS["short_description"]
(DETAILED,) = DEFAULT_QUESTIONS["detailed_description"]
_SHORT_WORDINGS = (
    SHORT,
    FieldQuestion("Please give me a short description of {region}.", "region", 24),
    FieldQuestion("What is in {region}? Using a short phrase.", "region", 24),
)
_DETAILED_WORDINGS = (
    DETAILED,
    FieldQuestion("Please describe {region} in detail.", "region", 96),
    FieldQuestion("What can you tell me about {region} in the picture?", "region", 96),
)
_MATERIAL_WORDINGS = (MATERIAL, FieldQuestion("What is {region} made of?", "part", 12))
_EXACT_WORDING_SHARE = 0.85


@dataclass(frozen=True, slots=True)
class QuestionItem:
    """One question and its answer.

    Attributes:
        kind: key of `decoder.QUOTAS`, which sets how often it is asked.
        message: the text after prefix P, with a `<mask><pos>` per region.
        answer: the right answer.
        regions: indices of the regions in the order of their placeholders.
    """

    kind: str
    message: str
    answer: str
    regions: tuple[int, ...]


def areas_of(scene: Scene) -> list[Area]:
    """List all regions of a scene: objects first, then every part followed by its sub-parts."""
    areas: list[Area] = list(scene.objects)
    for obj in scene.objects:
        for part in obj.parts:
            areas += [part, *part.subparts]
    return areas


def owner_of(scene: Scene, area: Area) -> SceneObject:
    """Return the object itself, or the one that a part belongs to."""
    return area if isinstance(area, SceneObject) else scene.objects[area.object_idx]


def part_name(area: Area) -> str:
    """Return what part an area is; an object is "whole"."""
    return WHOLE if isinstance(area, SceneObject) else area.name


def ask_everything(scene: Scene) -> tuple[QuestionItem, ...]:
    """Ask every question about every region of a scene; the same scene gives the same questions."""
    rng = np.random.default_rng((scene.seed, 3))
    areas = areas_of(scene)
    items = [item for idx, area in enumerate(areas) for item in _product_questions(scene, area, idx, rng)]
    items += [item for idx, obj in enumerate(scene.objects) for item in _place_questions(scene, obj, idx)]
    items += [item for dialogue in short_form_questions(scene) for item in _short_form(dialogue, areas)]
    items += [item for dialogue in positive_negative_questions(scene) for item in _positive_negative(dialogue, areas)]
    return (*items, *_picture_questions(scene, rng))


def _product_questions(scene: Scene, area: Area, idx: int, rng: np.random.Generator) -> list[QuestionItem]:
    """Ask exactly what the fields of a labeling project ask; sometimes in other words."""

    def item(kind: str, question: FieldQuestion, answer: str) -> QuestionItem:
        return QuestionItem(kind, question_message(question.text, question.form), answer, (idx,))

    size = "object" if isinstance(area, SceneObject) else "part"
    return [
        item(f"category {size}", CATEGORY, owner_of(scene, area).category),
        item(f"part {size}", PART, part_name(area)),
        item(f"color {size}", COLOR, area.color),
        item(f"material {size}", _worded(_MATERIAL_WORDINGS, rng), area.material),
        item(f"short {size}", _worded(_SHORT_WORDINGS, rng), short_description(scene, area)),
        item(f"detailed {size}", _worded(_DETAILED_WORDINGS, rng), detailed_description(scene, area)),
    ]


def _worded(wordings: tuple[FieldQuestion, ...], rng: np.random.Generator) -> FieldQuestion:
    """Choose the exact wording, or with a small probability one of the others."""
    exact = rng.random() < _EXACT_WORDING_SHARE
    return wordings[0] if exact else wordings[1 + int(rng.integers(len(wordings) - 1))]


def _place_questions(scene: Scene, obj: SceneObject, idx: int) -> list[QuestionItem]:
    """Ask where an object is and what is nearest to it: the two facts behind its canonical relation."""
    message = question_message("Where is {region}?", "part")
    items = [QuestionItem("place", message, place_in_picture(centroid(obj.mask), scene.image_wh), (idx,))]
    if obj.relations:
        nearest = scene.objects[obj.relations[0][1]]
        message = question_message("What is next to {region}?", "part")
        items.append(QuestionItem("next to", message, f"{nearest.color} {nearest.category}", (idx,)))
    return items


def _short_form(dialogue: Dialogue, areas: Sequence[Area]) -> list[QuestionItem]:
    """Turn each turn into a question of its own, with the preamble of the reference's reader."""
    regions = tuple(_index(areas, region) for region in dialogue.regions)
    items = []
    for turn in dialogue.turns:
        question = turn.question.replace("<", "").replace(">", "")
        kind = "relation check" if len(regions) > 1 else "short form"
        message = part_preamble(len(regions)) + question + SUFFIX_SHORT_FORM
        items.append(QuestionItem(kind, message, turn.answer, regions))
    return items


def _positive_negative(dialogue: Dialogue, areas: Sequence[Area]) -> list[QuestionItem]:
    """Turn each turn into a question about its region."""
    return [
        QuestionItem(
            "positive negative",
            turn.question.replace(f"<region{number}>", REGION_PLACEHOLDER),
            turn.answer,
            (_index(areas, region),),
        )
        for number, (turn, region) in enumerate(zip(dialogue.turns, dialogue.regions, strict=True), start=1)
    ]


def _picture_questions(scene: Scene, rng: np.random.Generator) -> list[QuestionItem]:
    """Ask two questions without a region: whether a category is in the picture."""
    present = sorted({obj.category for obj in scene.objects})
    absent = sorted(set(CATALOG) - set(present))
    asked = [(present[int(rng.integers(len(present)))], "yes"), (absent[int(rng.integers(len(absent)))], "no")]
    return [
        QuestionItem("picture", f"Is there a {name} in the picture?{SUFFIX_SHORT_FORM}", answer, ())
        for name, answer in asked
    ]


def _index(areas: Sequence[Area], region: Area) -> int:
    """Return the index of a region among the areas."""
    return next(idx for idx, area in enumerate(areas) if area is region)
