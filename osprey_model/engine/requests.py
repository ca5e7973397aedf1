"""What is asked and what is answered. No torch, so callers may build these anywhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from osprey_model.prompts import QuestionForm


@dataclass(frozen=True, slots=True)
class Question:
    """One question about one region.

    Attributes:
        text: holds `{region}`.
        form: "region" puts the region's placeholder there; "part" is the trained short form with `region1`.
        choices: not empty: the answer is one of them (several with `multiple`) and nothing else.
        mask_idx: which of the region's masks is asked about.
        max_new_tokens: limit of a free answer; one from `choices` is always complete.
    """

    text: str
    form: QuestionForm = "region"
    choices: tuple[str, ...] = ()
    multiple: bool = False
    mask_idx: int = 0
    max_new_tokens: int = 32


@dataclass(frozen=True, slots=True)
class RegionRequest:
    """One region: its masks, each bool (H, W) of any resolution, and its questions."""

    masks: tuple[Any, ...]
    questions: tuple[Question, ...]


class Alternative(NamedTuple):
    """Another of the choices, with its probability."""

    text: str
    probability: float


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one question.

    Attributes:
        text: the answer as one string.
        values: what a form field takes: the chosen values, or the text (a short answer without its final dot).
        confidence: 0..1. With choices the product of the probabilities renormalised over the allowed
            continuations; for free text the geometric mean of the token probabilities.
        alternatives: other choices, most probable first; empty for free text.
        warnings: what the asker should know, e.g. that the region was too small to be seen.
        token_logprobs: the model's own log-probability of each decoded token (not renormalised).
    """

    text: str
    values: tuple[str, ...]
    confidence: float
    alternatives: tuple[Alternative, ...] = ()
    warnings: tuple[str, ...] = ()
    token_logprobs: tuple[float, ...] = ()
