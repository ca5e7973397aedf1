"""A decoded row -> the `Answer` that leaves the engine."""

from __future__ import annotations

import re
from dataclasses import replace

from osprey_model.config import LEVELS
from osprey_model.engine.decode import Row
from osprey_model.engine.requests import Alternative, Answer, AnswerWarning, Question, WarningKind
from osprey_model.modeling.mask_extractor import RegionTokens
from osprey_model.prompts import clean, drop_repeats
from osprey_model.tokenizer import OspreyTokenizer

# Below this share of probability the model would rather have said something that is not in the list.
UNLIKELY_CHOICES = 0.1

FINE_LEVELS = LEVELS[:2]
_REMEDY = "finer_mask_read=True reads it there"
_REGION_MESSAGES: dict[WarningKind, str] = {
    "vanished": "the region is too small or thin for the model to see: the answer knows its place only",
    "coarse": "the region is too small or thin for the fine feature levels: the answer may be about its surroundings",
    "partly": "the region is too small or thin for some feature levels: the answer may miss what surrounds it",
}
WARNING_UNLIKELY = AnswerWarning(
    "unlikely", "the model would rather answer something that is not in the list of choices"
)
WARNING_CUT = AnswerWarning("cut", "the answer was cut at max_new_tokens; ask for more")


def answer_of(row: Row, question: Question, tokenizer: OspreyTokenizer, warnings: tuple[AnswerWarning, ...]) -> Answer:
    """Text, values and confidence of a finished row."""
    if row.walk is not None:
        values = row.walk.values()
        if row.choice_mass < UNLIKELY_CHOICES:
            warnings = (*warnings, WARNING_UNLIKELY)
        return Answer(
            text=", ".join(values),
            values=values,
            confidence=row.confidence(),
            alternatives=tuple(Alternative(*entry) for entry in row.walk.alternatives(question.num_alternatives)),
            warnings=warnings,
            token_logprobs=tuple(row.token_logprobs),
        )
    raw = tokenizer.decode(row.token_ids)
    text = drop_repeats(clean(raw))
    value = text.removesuffix(".") if _asks_for_a_phrase(question) else text
    if len(row.token_ids) == len(row.token_logprobs):  # no end token
        warnings = (*warnings, WARNING_CUT)
    return Answer(
        text=text,
        values=(value,) if value else (),
        confidence=row.confidence(),
        warnings=warnings,
        token_logprobs=tuple(row.token_logprobs),
        raw=raw,
    )


def region_warnings(region: RegionTokens) -> tuple[AnswerWarning, ...]:
    """What the asker should know about a region whose mask the feature grid cannot hold (R = 1)."""
    cells = dict(zip(LEVELS, region.covered_cells_RL[0].tolist(), strict=True))
    lost = tuple(level for level in LEVELS if not cells[level])
    if not lost:
        return ()
    kind: WarningKind = "vanished" if len(lost) == len(LEVELS) else "coarse" if {*FINE_LEVELS} <= {*lost} else "partly"
    return (AnswerWarning(kind, f"{_REGION_MESSAGES[kind]} (lost at {', '.join(lost)}; {_REMEDY})", lost),)


def mask_warnings(regions: RegionTokens) -> tuple[AnswerWarning, ...]:
    """The same for every mask of a conversation."""
    return tuple(
        replace(warning, mask_idx=idx, message=f"mask {idx}: {warning.message}")
        for idx in range(regions.mask_pixels_R.shape[0])
        for warning in region_warnings(regions.one(idx))
    )


def _asks_for_a_phrase(question: Question) -> bool:
    return question.form == "part" or re.search(r"\b(word|phrase)\b", question.text) is not None
