"""Regions of one annotation -> entries of the five Osprey-724K files.

The reference's readers add the image prefix, the part preamble and the answer suffix themselves; an entry
holds plain questions that name `<regionK>`, K counting the entry's `annotation` list from 1. Their rules:
texts lose every `<` and `>` when read, a description is what follows `<regionK>: `, and in the positive/negative
file every annotation is named exactly once and in order. Questions are the product's own, so what a model learns
here is what it is asked at a click.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from label_config.reader import Field, LabelConfig
from worker.export.regions import ExportedRegion

DESCRIPTIONS = "osprey_detail_description.json"
SHORT_FORM = "osprey_short_form.json"
PART_LEVEL = "osprey_part_level.json"
CONVERSATIONS = "osprey_conversation.json"
POSITIVE_NEGATIVE = "osprey_lvis_positive_negative.json"
FILES = (DESCRIPTIONS, SHORT_FORM, PART_LEVEL, CONVERSATIONS, POSITIVE_NEGATIVE)

Entry = dict[str, Any]

_CATEGORY_QUESTION = "What is the category of {region}?"  # the reader adds its own "single word or phrase"
_ATTRIBUTES_QUESTION = "Which attributes does {region} have?"
_OTHER_QUESTION = "What is the {name} of {region}?"
_IS_CATEGORY_QUESTION = "Is the category of {region} "  # the category and a question mark follow


@dataclass(frozen=True, slots=True)
class QuestionAnswer:
    """One turn about one region; `question` holds `{region}`."""

    region: ExportedRegion
    question: str
    answer: str


def entries_of(config: LabelConfig, regions: Sequence[ExportedRegion], vocabulary: Sequence[str]) -> dict[str, Entry]:
    """The entry of each file that the regions' texts support, by file name.

    Args:
        config: where the texts come from.
        regions: all of one annotation, of one image size.
        vocabulary: the project's categories, sorted: from there come the wrong ones of negative questions.
    """
    short = [pair for region in regions if not region.is_part for pair in _short_answers(config, region)]
    part = [pair for region in regions if region.is_part for pair in _short_answers(config, region)]
    described = [
        (region, answer)
        for region in regions
        if (answer := clean_text(" ".join(_texts(config, region, "detailed_description"))))
    ]
    entries = {
        SHORT_FORM: _conversation(short),
        PART_LEVEL: _conversation(part),
        CONVERSATIONS: _conversation([pair for region in regions for pair in _short_descriptions(config, region)]),
        POSITIVE_NEGATIVE: _positive_negative(config, regions, vocabulary),
        DESCRIPTIONS: _entry(
            [region for region, _ in described],
            {"description": [f"<region{idx}>: {answer}" for idx, (_, answer) in enumerate(described, start=1)]},
        ),
    }
    return {name: entry for name, entry in entries.items() if entry is not None}


def category_of(config: LabelConfig, region: ExportedRegion) -> str | None:
    """What the object of the region is, cleaned; where no control asks for it, the label of the mask."""
    if any(field.role == "category" for field in config.fields):
        return clean_text(" ".join(_texts(config, region, "category")[:1])) or None
    has_classes = not {label.lower() for label in config.output.labels} & {"object", "region", "part"}
    return clean_text(region.label or "") or None if has_classes else None


def clean_text(text: str) -> str:
    """A text that cannot be taken for a placeholder: no `<` or `>`, one line, single spaces."""
    return re.sub(r"\s+", " ", re.sub(r"[<>]", "", text)).strip()


def _texts(config: LabelConfig, region: ExportedRegion, role: str) -> list[str]:
    return [text for field in config.fields if field.role == role for text in region.texts.get(field.name, [])]


def _short_answers(config: LabelConfig, region: ExportedRegion) -> Iterator[QuestionAnswer]:
    """What is answered in a word or phrase: category, part, attributes, fields with a question of their own."""
    category = category_of(config, region)
    if category and not region.is_part:  # a part's category is asked on its object's mask
        yield QuestionAnswer(region, _CATEGORY_QUESTION, category)
    for field in config.fields:
        if field.role == "part" and not region.is_part:
            continue
        if field.role in ("part", "attribute", "custom"):
            for question, answer in _paired(field, region):
                yield QuestionAnswer(region, question, answer)


def _short_descriptions(config: LabelConfig, region: ExportedRegion) -> Iterator[QuestionAnswer]:
    for field in config.fields:
        answer = clean_text(" ".join(region.texts.get(field.name, [])))
        if field.role == "short_description" and answer:
            yield QuestionAnswer(region, field.questions[0].text, answer)


def _paired(field: Field, region: ExportedRegion) -> Iterator[tuple[str, str]]:
    """Questions of a control with their answers.

    A control with several questions (colour, material) holds one list of values. Value K answers question K only
    where the model suggested one value per question and nobody has moved one; otherwise all values answer one
    question about all, because a colour taught as a material is worse than a pair less.
    """
    texts = [clean for text in region.texts.get(field.name, []) if (clean := clean_text(text))]
    if not texts:
        return
    if len(field.questions) == 1:
        yield field.questions[0].text, ", ".join(texts)
        return
    suggested = [clean_text(text) for text in (region.suggestion or {}).get(field.name, [])]
    moved = any(text in suggested and suggested.index(text) != idx for idx, text in enumerate(texts))
    if len(texts) == len(suggested) == len(field.questions) and not moved:
        yield from zip((question.text for question in field.questions), texts, strict=True)
        return
    name = clean_text(field.name.replace("_", " "))
    together = _ATTRIBUTES_QUESTION if field.role == "attribute" else _OTHER_QUESTION.replace("{name}", name)
    yield together, ", ".join(texts)


def _conversation(pairs: Sequence[QuestionAnswer]) -> Entry | None:
    regions = list({pair.region.region: pair.region for pair in pairs}.values())
    number = {region.region: idx for idx, region in enumerate(regions, start=1)}
    turns = [(pair.question, number[pair.region.region], pair.answer) for pair in pairs]
    return _entry(regions, {"conversations": _turns(turns)})


def _positive_negative(
    config: LabelConfig, regions: Sequence[ExportedRegion], vocabulary: Sequence[str]
) -> Entry | None:
    """Each object twice, once with its category and once with a wrong one, in an order that tells nothing."""
    shown: list[ExportedRegion] = []
    turns: list[tuple[str, int, str]] = []
    for region in regions:
        category = category_of(config, region)
        if category is None or region.is_part:
            continue
        questions = [(category, "Yes.")]
        wrong = wrong_category(config, region, vocabulary)
        if wrong is not None:
            questions.insert(_digest(region.region, "order") % 2, (wrong, "No."))
        for asked, answer in questions:
            shown.append(region)
            turns.append((f"{_IS_CATEGORY_QUESTION}{asked}?", len(shown), answer))
    return _entry(shown, {"conversations": _turns(turns)})


def wrong_category(config: LabelConfig, region: ExportedRegion, vocabulary: Sequence[str]) -> str | None:
    """A category the region does not have: the model's corrected mistake, else one of the project's."""
    right = (category_of(config, region) or "").lower()
    if (mistake := corrected_category(config, region)) is not None:
        return mistake
    others = [category for category in vocabulary if category.lower() != right]
    return others[_digest(region.region, "negative") % len(others)] if others else None


def corrected_category(config: LabelConfig, region: ExportedRegion) -> str | None:
    """The category that the model suggested and a person replaced: a hard negative."""
    right = (category_of(config, region) or "").lower()
    for field in config.fields:
        if field.role == "category" and region.suggestion:
            suggested = clean_text(" ".join(region.suggestion.get(field.name, [])[:1]))
            if suggested and right and suggested.lower() != right:
                return suggested
    return None


def _entry(regions: Sequence[ExportedRegion], content: Mapping[str, list[Any]]) -> Entry | None:
    if not regions or not all(content.values()):
        return None
    first = regions[0]
    return {
        "id": first.task,
        "file_name": first.image,
        "height": first.image_wh[1],
        "width": first.image_wh[0],
        "annotation": [
            {"bbox": list(region.bbox), "segmentation": dict(region.mask), "area": region.area, "region": region.region}
            for region in regions
        ],
        **content,
    }


def _turns(turns: Sequence[tuple[str, int, str]]) -> list[dict[str, str]]:
    entries = []
    for question, number, answer in turns:
        # Only the first one is the placeholder: what follows may be a category that a person typed.
        entries.append({"from": "human", "value": question.replace("{region}", f"<region{number}>", 1)})
        entries.append({"from": "gpt", "value": answer})
    return entries


def _digest(region_id: str, purpose: str) -> int:
    """A number that depends on the region alone, so that the same export is written twice."""
    return int.from_bytes(
        hashlib.sha256(f"{purpose}:{region_id}".encode("utf-8", "backslashreplace")).digest()[:8], "big"
    )
