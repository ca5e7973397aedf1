"""A decoded row -> the `Answer` that leaves the engine."""

from __future__ import annotations

import re
from dataclasses import replace

from osprey_model.config import LEVELS
from osprey_model.engine.decode import Row
from osprey_model.engine.requests import Alternative, Answer, Question
from osprey_model.modeling.mask_extractor import RegionTokens
from osprey_model.prompts import clean, drop_repeats
from osprey_model.tokenizer import OspreyTokenizer

NUM_ALTERNATIVES = 5
# Below this share of probability the model would rather have said something that is not in the list.
UNLIKELY_CHOICES = 0.1

WARNING_EMPTY = "the region is empty: the answer does not look at any pixel"
WARNING_VANISHED = "the region is too small or thin for the model to see: the answer knows its place only"
WARNING_COARSE = "the region is too small or thin for the fine feature levels: the answer may be about its surroundings"
WARNING_OUTSIDE = "the model would rather answer something that is not in the list of choices"


def answer_of(row: Row, question: Question, tokenizer: OspreyTokenizer, warnings: tuple[str, ...]) -> Answer:
    """Text, values and confidence of a finished row."""
    if row.walk is not None:
        values = row.walk.values()
        if row.choice_mass < UNLIKELY_CHOICES:
            warnings = (*warnings, WARNING_OUTSIDE)
        return Answer(
            text=", ".join(values),
            values=values,
            confidence=row.confidence(),
            alternatives=tuple(Alternative(*entry) for entry in row.walk.alternatives(NUM_ALTERNATIVES)),
            warnings=warnings,
            token_logprobs=tuple(row.token_logprobs),
        )
    answer = free_text(row, tokenizer)
    value = answer.text.removesuffix(".") if _asks_for_a_phrase(question) else answer.text
    return replace(answer, values=(value,) if value else (), warnings=warnings)


def free_text(row: Row, tokenizer: OspreyTokenizer) -> Answer:
    """The decoded text as it is, up to where it begins to repeat itself."""
    text = drop_repeats(clean(tokenizer.decode(row.token_ids)))
    return Answer(
        text=text,
        values=(text,) if text else (),
        confidence=row.confidence(),
        token_logprobs=tuple(row.token_logprobs),
    )


def region_warnings(region: RegionTokens, *, finer_read: bool) -> tuple[str, ...]:
    """What the asker should know about a region whose mask the feature grid cannot hold (R = 1)."""
    if region.is_empty:
        return (WARNING_EMPTY,)
    cells = dict(zip(LEVELS, region.covered_cells_RL[0].tolist(), strict=True))
    if not any(cells.values()):
        return (WARNING_VANISHED,)
    if not finer_read and not cells["res2"] and not cells["res3"]:
        return (WARNING_COARSE,)
    return ()


def _asks_for_a_phrase(question: Question) -> bool:
    return question.form == "part" or re.search(r"\b(word|phrase)\b", question.text) is not None
