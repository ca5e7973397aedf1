"""Convert the regions of one annotation to entries of the five Osprey-724K files.

The readers of the released code add the image prefix, the part preamble and the answer suffix. An entry holds plain
questions that name `<regionK>`, where K counts the entry's `annotation` list from 1. The readers' rules: every `<` and
`>` in a text is removed, a description is what follows `<regionK>: `, and in the positive/negative file every
annotation is named exactly once and in order. The questions are those that a click asks.

`weight` of an entry is an addition of this project: `osprey_model.data` multiplies the loss by it, the released code
ignores it. Therefore answers that annotators wrote or changed are in other entries than answers that they accepted.
A long annotation is split into entries that fit into the model's context, which the released code does not check.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from label_config.reader import Field, LabelConfig
from learning.export.categories import absent_category, category_of, clean_text, corrected_category, draw, is_edited
from learning.submitted.regions import SubmittedRegion

DESCRIPTIONS = "osprey_detail_description.json"
SHORT_FORM = "osprey_short_form.json"
PART_LEVEL = "osprey_part_level.json"
CONVERSATIONS = "osprey_conversation.json"
POSITIVE_NEGATIVE = "osprey_lvis_positive_negative.json"
# The `type` of each file in a data config.
TYPES = {
    DESCRIPTIONS: "OspreyDetailedDescription",
    SHORT_FORM: "OspreyShortForm",
    PART_LEVEL: "OspreyPartLevel",
    CONVERSATIONS: "OspreyConversations",
    POSITIVE_NEGATIVE: "OspreyLVISPosNeg",
}
FILES = tuple(TYPES)

Entry = dict[str, Any]

_CATEGORY_QUESTION = "What is the category of {region}?"  # the reader adds "single word or phrase"
_ATTRIBUTES_QUESTION = "Which attributes does {region} have?"
_OTHER_QUESTION = "What is the {name} of {region}?"
_IS_CATEGORY_QUESTION = "Is the category of {region} "  # the category and a question mark follow
# 400 tokens of plain English, up to 760 with the small model's tokenizer: both fit beside the image.
_MAX_ENTRY_CHARS = 1600
_CHARS_PER_TURN = 70  # roles, and the suffix that a reader adds
_CHARS_PER_REGION = 20  # its name in the preamble


@dataclass(frozen=True, slots=True)
class QuestionAnswer:
    """One turn about one region. `question` contains `{region}`; it is empty for a description."""

    region: SubmittedRegion
    question: str
    answer: str
    edited: bool


@dataclass(frozen=True, slots=True)
class Teaching:
    """How answers become entries: the weight of edited answers, and the seed for sampling wrong categories."""

    edited_weight: float = 3.0
    seed: int = 0


def entries_of(
    config: LabelConfig, regions: Sequence[SubmittedRegion], vocabulary: Sequence[str], teaching: Teaching
) -> dict[str, list[Entry]]:
    """Return the entries that the regions' values allow, by file name.

    Args:
        config: the project's labeling config.
        regions: all regions of one annotation, of one image size.
        vocabulary: the project's categories, sorted; the wrong categories of negative questions are drawn from them.
        teaching: weights and seed.
    """
    whole = [region for region in regions if not region.is_part]
    parts = [region for region in regions if region.is_part]
    pairs = {
        DESCRIPTIONS: [pair for region in regions for pair in _descriptions(config, region)],
        SHORT_FORM: [pair for region in whole for pair in _short_answers(config, region)],
        PART_LEVEL: [pair for region in parts for pair in _short_answers(config, region)],
        CONVERSATIONS: [pair for region in regions for pair in _short_descriptions(config, region)],
        POSITIVE_NEGATIVE: [
            pair for region in whole for pair in _yes_and_no(config, region, whole, vocabulary, teaching.seed)
        ],
    }
    make = {DESCRIPTIONS: _description_entry, POSITIVE_NEGATIVE: _once_named_entry}
    return {
        name: [
            {**make.get(name, conversation_entry)(chunk), "weight": teaching.edited_weight if edited else 1.0}
            for edited in (False, True)
            for chunk in _chunks([pair for pair in found if pair.edited is edited])
        ]
        for name, found in pairs.items()
        if found
    }


def _chunks(pairs: Sequence[QuestionAnswer]) -> Iterator[list[QuestionAnswer]]:
    """Group pairs into entries below the length limit; a pair that exceeds it gets an entry of its own."""
    chunk: list[QuestionAnswer] = []
    used = 0
    seen: set[str] = set()
    for pair in pairs:
        length = len(pair.question) + len(pair.answer) + _CHARS_PER_TURN
        if chunk and used + length + _CHARS_PER_REGION > _MAX_ENTRY_CHARS:
            yield chunk
            chunk, used, seen = [], 0, set()
        used += length + (0 if pair.region.region in seen else _CHARS_PER_REGION)
        seen.add(pair.region.region)
        chunk.append(pair)
    if chunk:
        yield chunk


def _descriptions(config: LabelConfig, region: SubmittedRegion) -> Iterator[QuestionAnswer]:
    fields = [field for field in config.fields if field.role == "detailed_description"]
    answer = clean_text(" ".join(text for field in fields for text in region.texts.get(field.name, [])))
    if answer:
        yield QuestionAnswer(region, "", answer, any(is_edited(region, field.name) for field in fields))


def _short_answers(config: LabelConfig, region: SubmittedRegion) -> Iterator[QuestionAnswer]:
    """Yield the questions with short answers: category, part, attributes and custom fields."""
    category = category_of(config, region)
    if category and not region.is_part:  # a part's category is asked with its object's mask
        yield QuestionAnswer(region, _CATEGORY_QUESTION, category, _is_category_edited(config, region))
    for field in config.fields:
        if field.role == "part" and not region.is_part:
            continue
        if field.role in ("part", "attribute", "custom"):
            for question, answer in paired(field, region):
                yield QuestionAnswer(region, question, answer, is_edited(region, field.name))


def _short_descriptions(config: LabelConfig, region: SubmittedRegion) -> Iterator[QuestionAnswer]:
    for field in config.fields:
        answer = clean_text(" ".join(region.texts.get(field.name, [])))
        if field.role == "short_description" and answer:
            yield QuestionAnswer(region, field.questions[0].text, answer, is_edited(region, field.name))


def _yes_and_no(
    config: LabelConfig,
    region: SubmittedRegion,
    neighbours: Sequence[SubmittedRegion],
    vocabulary: Sequence[str],
    seed: int,
) -> list[QuestionAnswer]:
    """Ask once with the correct category and once with a wrong one, in random order."""
    category = category_of(config, region)
    if category is None:
        return []
    edited = _is_category_edited(config, region)
    asked = [(category, "Yes.")]
    wrong = corrected_category(config, region) or absent_category(config, region, neighbours, vocabulary, seed)
    if wrong is not None:
        asked.insert(draw(seed, region.region) % 2, (wrong, "No."))
    return [QuestionAnswer(region, f"{_IS_CATEGORY_QUESTION}{name}?", answer, edited) for name, answer in asked]


def _is_category_edited(config: LabelConfig, region: SubmittedRegion) -> bool:
    names = [field.name for field in config.fields if field.role == "category"]
    return any(is_edited(region, name) for name in names) if names else is_edited(region, None)


def paired(field: Field, region: SubmittedRegion) -> Iterator[tuple[str, str]]:
    """Yield the questions of a field with their answers.

    A field with several questions (colour, material) holds one list of values. Value K answers question K only if the
    model suggested one value per question and the annotator has not reordered them. Otherwise all values answer one
    joint question, because training a colour as a material is worse than one pair less.
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


def conversation_entry(pairs: Sequence[QuestionAnswer]) -> Entry:
    """Make a conversation; regions are numbered in the order of their first question."""
    regions = list({pair.region.region: pair.region for pair in pairs}.values())
    number = {region.region: idx for idx, region in enumerate(regions, start=1)}
    return entry_of(regions) | {"conversations": _turns(pairs, [number[pair.region.region] for pair in pairs])}


def _once_named_entry(pairs: Sequence[QuestionAnswer]) -> Entry:
    """Make a conversation with one region number per question: the reader pairs the k-th name with the k-th mask."""
    return entry_of([pair.region for pair in pairs]) | {"conversations": _turns(pairs, range(1, len(pairs) + 1))}


def _description_entry(pairs: Sequence[QuestionAnswer]) -> Entry:
    texts = [f"<region{idx}>: {pair.answer}" for idx, pair in enumerate(pairs, start=1)]
    return entry_of([pair.region for pair in pairs]) | {"description": texts}


def entry_of(regions: Sequence[SubmittedRegion]) -> Entry:
    """Return the part that all kinds of entries share: image, size and masks of the regions."""
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
    }


def _turns(pairs: Sequence[QuestionAnswer], numbers: Sequence[int]) -> list[dict[str, str]]:
    turns = []
    for pair, number in zip(pairs, numbers, strict=True):
        # Only the first one is the placeholder: a category that an annotator typed may follow.
        turns.append({"from": "human", "value": pair.question.replace("{region}", f"<region{number}>", 1)})
        turns.append({"from": "gpt", "value": pair.answer})
    return turns
