"""Osprey-724K: five JSON lists of {file_name, height, width, annotation, conversations or description}.

Region k in a text is `annotation[k - 1]`; `bbox` is not used.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from osprey_model.data.conversation import turns_of
from osprey_model.data.phrasings import DETAIL_QUESTIONS
from osprey_model.data.records import CocoRegion, Draws, Record, positive_hw
from osprey_model.inputs.prompts import PREFIX_P, SUFFIX_SHORT_FORM, part_preamble, region_question
from osprey_model.inputs.tokenizer import REGION_PLACEHOLDER

_ANSWER_START = re.compile(r"<[^<>]*>:\s*")
_REGION_NAME = re.compile(r"<region(\d+)>")


def preamble_record(suffix: str) -> Callable[[dict[str, Any], Path, Draws], Record | None]:
    """Create the reader of conversations, short form or part level; they differ in the suffix of the questions."""

    def record(entry: dict[str, Any], images: Path, _draws: Draws) -> Record | None:
        """Return the record of an entry: regions are introduced once; later the text names them region1, region2."""
        turns = turns_of(entry["conversations"])
        if not turns:
            return None
        regions = _regions(entry)
        opening = PREFIX_P + part_preamble(len(regions))
        messages = [_without_brackets(question) + suffix for question, _ in turns]
        messages[0] = opening + messages[0]
        answers = [_without_brackets(answer) for _, answer in turns]
        return Record(tuple(zip(messages, answers, strict=True)), _plain_image(entry, images), regions)

    return record


conversations = preamble_record("")
short_form = preamble_record(SUFFIX_SHORT_FORM)
part_level = preamble_record(SUFFIX_SHORT_FORM)


def detailed_description(entry: dict[str, Any], images: Path, draws: Draws) -> Record | None:
    """Return the record of an entry: per region a random detail question, and the text behind `<regionK>: `.

    Raises:
        ValueError: the numbers of descriptions and annotations differ, or a description does not begin with a name in
            brackets.
    """
    regions, texts = _regions(entry), entry["description"]
    if len(texts) != len(regions):
        raise ValueError(f"{len(texts)} descriptions for {len(regions)} annotations; expected one each, in order")
    answers = []
    for text in texts:
        start = _ANSWER_START.match(text)
        if start is None:
            raise ValueError(f"expected a description that begins with '<regionK>: ', got {text[:40]!r}")
        answers.append(text[start.end() :])
    if not answers:
        return None
    messages = [region_question(draws.choose(DETAIL_QUESTIONS)) for _ in answers]
    return Record(_with_prefix(messages, answers), _plain_image(entry, images), regions)


def lvis_positive_negative(entry: dict[str, Any], images: Path, _draws: Draws) -> Record | None:
    """Return the record of an entry with yes/no questions: `<regionN>` becomes that region's placeholder.

    Masks are in the order in which the text names them, so they are paired correctly also if the text names regions in
    another order, twice or not at all. The reference pairs the masks of such entries wrongly.

    Raises:
        ValueError: a named region has no annotation.
    """
    turns = turns_of(entry["conversations"])
    if not turns:
        return None
    regions = _regions(entry)
    numbers = [int(number) for question, _ in turns for number in _REGION_NAME.findall(question)]
    unknown = [number for number in numbers if not 1 <= number <= len(regions)]
    if unknown:
        raise ValueError(f"the questions name region {unknown[0]}; there are {len(regions)} annotations")
    messages = [_REGION_NAME.sub(REGION_PLACEHOLDER, question) for question, _ in turns]
    named = tuple(regions[number - 1] for number in numbers)
    return Record(_with_prefix(messages, [answer for _, answer in turns]), images / entry["file_name"], named)


def _with_prefix(messages: Sequence[str], answers: Sequence[str]) -> tuple[tuple[str, str], ...]:
    first, *others = messages
    return tuple(zip((PREFIX_P + first, *others), answers, strict=True))


def _without_brackets(text: str) -> str:
    return text.replace("<", "").replace(">", "")


def _regions(entry: dict[str, Any]) -> tuple[CocoRegion, ...]:
    image_hw = positive_hw(entry)
    return tuple(CocoRegion(annotation["segmentation"], image_hw) for annotation in entry["annotation"])


def _plain_image(entry: dict[str, Any], images: Path) -> Path:
    """Return the path of an image by its COCO 2017 name: the part behind the last underscore."""
    name: str = entry["file_name"].rsplit("_", 1)[-1]
    return images / name
