"""A decoded row -> the `Answer` that leaves the engine."""

from __future__ import annotations

import re

from osprey_model.engine.decoding.rows import Row
from osprey_model.engine.requests import Alternative, Answer, AnswerWarning, Question
from osprey_model.inputs.prompts import clean, drop_repeats
from osprey_model.inputs.tokenizer import OspreyTokenizer

# Below this share of probability the model would rather have said something that is not in the list.
UNLIKELY_CHOICES = 0.1

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


def _asks_for_a_phrase(question: Question) -> bool:
    return question.form == "part" or re.search(r"\b(word|phrase)\b", question.text) is not None
