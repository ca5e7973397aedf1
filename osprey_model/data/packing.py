"""Many questions on one image as one training sample: the prefix that they share once, then a row per question.

Each row is a conversation of its own and attends to no other row (`osprey_model/modeling/packed_rows.py`). So the model
learns exactly the engine's prompts: one question behind the image. The weight of an answer grows with the square root
of its length. With equal weights, a long description would teach as little as a single word; with weights by length,
single words would hardly count.
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
    """A message without prefix, its answer, and the weight of the answer."""

    message: str
    answer: str
    weight: float = 1.0


def encode_rows(tokenizer: OspreyTokenizer, rows: Sequence[QuestionRow], *, template: Template) -> LabeledIds:
    """Encode questions behind prefix P: ids, labels, row ids and weights.

    Raises:
        LabelMismatch: the tokens of the prefix or of a question change with the text behind them.
        ValueError: there is no row.
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
