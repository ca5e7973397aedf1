"""`OspreyQuestions`: a service's questions with their answers: {file_name, height, width, annotation, questions}.

A question is {region, text, form, answer} with an optional weight. It is about `annotation[region - 1]`; `text`
contains `{region}` and has one of the engine's forms. The questions of an entry are packed into one sample, in which no
question attends to another (`packing.py`). Osprey-724K has no such file: its wordings are not those of a service.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from osprey_model.data.records import CocoRegion, Draws, Record, positive_hw
from osprey_model.inputs.prompts import question_message


def questions(entry: dict[str, Any], images: Path, _draws: Draws) -> Record | None:
    """Return the packed record of an entry; None without questions.

    Raises:
        ValueError: a region has no annotation, an answer is not a text, or a weight is not above zero.
    """
    image_hw, annotations = positive_hw(entry), entry["annotation"]
    turns, regions, weights = [], [], []
    for number, question in enumerate(entry["questions"], start=1):
        region, answer, weight = question["region"], question["answer"], question.get("weight", 1.0)
        if not isinstance(region, int) or not 1 <= region <= len(annotations):
            raise ValueError(f"question {number} names region {region!r}; there are {len(annotations)} annotations")
        if not isinstance(answer, str) or not answer.strip():
            raise ValueError(f"question {number} needs an answer, got {answer!r}")
        if not isinstance(weight, (int, float)) or not weight > 0:
            raise ValueError(f"question {number} has the weight {weight!r}; expected a number above zero")
        turns.append((question_message(question["text"], question["form"]), answer.strip()))
        regions.append(CocoRegion(annotations[region - 1]["segmentation"], image_hw))
        weights.append(float(weight))
    if not turns:
        return None
    return Record(tuple(turns), images / entry["file_name"], tuple(regions), row_weights=tuple(weights))
