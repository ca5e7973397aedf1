"""Regions of one annotation -> what a click asks, word for word: one question on one region per entry.

The five files of `worker/export/osprey_724k.py` teach as the paper did, many turns and regions in a conversation. A
click asks each question alone behind the image, so that is taught, too. Both files are read by readers that the
released trainer has: the yes/no one puts a region where it is named, the short-form one makes the part form.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from label_config.reader import Field, LabelConfig
from label_config.schema import FieldQuestion
from worker.export.categories import clean_text, is_edited
from worker.export.osprey_724k import QuestionAnswer, Teaching, conversation_entry, paired
from worker.export.regions import ExportedRegion

REGION_FORM, PART_FORM = "click_region_form.json", "click_part_form.json"
CLICK_TYPES = {REGION_FORM: "OspreyLVISPosNeg", PART_FORM: "OspreyShortForm"}
_FILES = {"region": REGION_FORM, "part": PART_FORM}


def click_entries(
    config: LabelConfig, regions: Sequence[ExportedRegion], teaching: Teaching
) -> dict[str, list[dict[str, Any]]]:
    """The entries of both files for all regions of one annotation, by file name."""
    entries: dict[str, list[dict[str, Any]]] = {name: [] for name in CLICK_TYPES}
    for region in regions:
        for field in config.fields:
            for question, answer in _asked(field, region):
                edited = is_edited(region, field.name)
                entry = conversation_entry([QuestionAnswer(region, question.text, answer, edited)])
                weight = teaching.edited_weight if edited else 1.0
                entries[_FILES[question.form]].append({**entry, "weight": weight})
    return entries


def _asked(field: Field, region: ExportedRegion) -> Iterator[tuple[FieldQuestion, str]]:
    """The questions that a click on this region would ask for a control, with what people answered."""
    # A part's category is asked on its object's mask, and an object is asked for no part.
    if (field.role == "category" and region.is_part) or (field.role == "part" and not region.is_part):
        return
    if field.role in ("category", "short_description", "detailed_description"):
        words = region.texts.get(field.name, [])
        answer = clean_text(words[0] if field.role == "category" and words else " ".join(words))
        if answer and field.questions:
            yield field.questions[0], answer
        return
    by_text = {question.text: question for question in field.questions}
    for text, answer in paired(field, region):
        if text in by_text:  # a joint question on all attributes is asked by no click
            yield by_text[text], answer
