"""Many questions on one image as one training sample: the prefix they share once, every question a row behind it.

Each row is a conversation of its own, the model sees no other row (`osprey_model/modeling/packed_rows.py`), and so
learns exactly what the engine asks: one question behind the image. An answer counts by the square root of its length:
counted alike, long descriptions would teach as little as a word; by their tokens, the words would be lost in them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from osprey_model.config import IGNORE_INDEX
from osprey_model.data.conversation import LabeledIds, LabelMismatch
from osprey_model.inputs.prompts import PREFIX_P, Template
from osprey_model.inputs.tokenizer import OspreyTokenizer


@dataclass(frozen=True, slots=True)
class QuestionRow:
    """A message without prefix, its answer, and how much the answer counts."""

    message: str
    answer: str
    weight: float = 1.0


def encode_rows(tokenizer: OspreyTokenizer, rows: Sequence[QuestionRow], *, template: Template) -> LabeledIds:
    """Ids, labels, rows and weights of questions behind prefix P.

    Raises:
        LabelMismatch: the prefix or a question is tokenised differently with what follows it.
        ValueError: no row.
    """
    if not rows:
        raise ValueError("expected at least one question, got none")
    opening = template.opening() + PREFIX_P
    ids = tokenizer.encode_prompt(opening)
    labels, row_ids, weights = [IGNORE_INDEX] * len(ids), [0] * len(ids), [0.0] * len(ids)
    start = len(ids)
    prefix = list(ids)
    for number, row in enumerate(rows, start=1):
        asked = tokenizer.encode_prompt(opening + template.turn(row.message))
        whole = tokenizer.encode_prompt(f"{opening}{template.turn(row.message)} {row.answer}{template.end_of_answer}")
        if asked[:start] != prefix or whole[: len(asked)] != asked:
            raise LabelMismatch(
                f"question {number} is tokenised differently behind the prefix or with its answer; "
                f"question {row.message[:40]!r}, answer {row.answer[:40]!r}"
            )
        answer = whole[len(asked) :]
        ids += whole[start:]
        labels += [IGNORE_INDEX] * (len(asked) - start) + answer
        row_ids += [number] * (len(whole) - start)
        weights += [0.0] * (len(asked) - start) + [row.weight / math.sqrt(len(answer))] * len(answer)
    return LabeledIds(ids, labels, row_ids, weights)
