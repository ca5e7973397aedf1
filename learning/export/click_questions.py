"""Write `click_questions.json`: the exact questions that a click asks about the regions, with the submitted answers.

The five files of `learning/export/osprey_724k.py` have the paper's form: conversations with many turns and regions. A
click asks each question alone after the image, so a model is trained on that form, too. The file's format is this
project's own (`OspreyQuestions` in `osprey_model.data`): independent questions after one image, each with its weight.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from label_config.reader import Field, LabelConfig
from label_config.schema import FieldQuestion
from learning.export.categories import clean_text, is_edited
from learning.export.osprey_724k import Teaching, entry_of, paired
from learning.submitted.regions import SubmittedRegion

CLICK_QUESTIONS = "click_questions.json"
CLICK_TYPES = {CLICK_QUESTIONS: "OspreyQuestions"}
# About 1000 tokens beside the image's 1024, which bounds the memory of a training step.
_QUESTIONS_PER_ENTRY = 24


def click_entries(
    config: LabelConfig, regions: Sequence[SubmittedRegion], teaching: Teaching
) -> dict[str, list[dict[str, Any]]]:
    """Return the entries for all regions of one annotation, by file name."""
    asked = [
        (region, question, answer, teaching.edited_weight if is_edited(region, field.name) else 1.0)
        for region in regions
        for field in config.fields
        for question, answer in _asked(field, region)
    ]
    chunks = [asked[start : start + _QUESTIONS_PER_ENTRY] for start in range(0, len(asked), _QUESTIONS_PER_ENTRY)]
    return {CLICK_QUESTIONS: [_entry(chunk) for chunk in chunks]}


def _entry(asked: Sequence[tuple[SubmittedRegion, FieldQuestion, str, float]]) -> dict[str, Any]:
    regions = list({region.region: region for region, *_ in asked}.values())
    number = {region.region: idx for idx, region in enumerate(regions, start=1)}
    questions = [
        {"region": number[region.region], "text": question.text, "form": question.form, "answer": answer, "weight": w}
        for region, question, answer, w in asked
    ]
    return entry_of(regions) | {"questions": questions}


def _asked(field: Field, region: SubmittedRegion) -> Iterator[tuple[FieldQuestion, str]]:
    """Yield the questions that a click on this region asks for a field, with the submitted answers."""
    # A part's category is asked with its object's mask, and an object has no part question.
    if (field.role == "category" and region.is_part) or (field.role == "part" and not region.is_part):
        return
    if field.role in ("category", "short_description", "detailed_description"):
        values = region.texts.get(field.name, [])
        answer = clean_text(values[0] if field.role == "category" and values else " ".join(values))
        if answer and field.questions:
            yield field.questions[0], answer
        return
    by_text = {question.text: question for question in field.questions}
    for text, answer in paired(field, region):
        if text in by_text:  # no click asks one question about all attributes together
            yield by_text[text], answer
