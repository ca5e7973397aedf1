"""A finished row -> its `Answer`."""

from __future__ import annotations

import re

from osprey_model.engine.decoding.rows import Row
from osprey_model.engine.requests import Alternative, Answer, AnswerWarning, Question
from osprey_model.inputs.prompts import clean, drop_repeats
from osprey_model.inputs.tokenizer import OspreyTokenizer

# If the choices together had less probability than this at some step, the model prefers an answer outside the list.
UNLIKELY_CHOICES = 0.1

WARNING_UNLIKELY = AnswerWarning(
    "unlikely", "the model considers an answer that is not in the list of choices far more probable"
)
WARNING_CUT = AnswerWarning("cut", "the answer was cut at max_new_tokens; set a higher limit")


def answer_of(row: Row, question: Question, tokenizer: OspreyTokenizer, warnings: tuple[AnswerWarning, ...]) -> Answer:
    """Create the answer of a finished row: text, values and confidence.

    Args:
        row: ended.
        question: the question that the row answers.
        tokenizer: of the model.
        warnings: about the region; those about the answer are added.
    """
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
