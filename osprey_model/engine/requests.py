"""Questions, requests, answers and failures. This module does not import torch, so callers may use it anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from osprey_model.inputs.prompts import QuestionForm


class BadQuestion(ValueError):
    """A question does not fit its form, or asks about a mask that the region does not have."""


class PromptTooLong(ValueError):
    """The prompt and its image leave no room for an answer in the decoder's context."""


@dataclass(frozen=True, slots=True)
class Question:
    """One question about one region.

    Attributes:
        text: contains `{region}`.
        form: "region" puts the region's placeholder there; "part" is the short form of the training data, in which
            the text says `region1` and the placeholder stands in front.
        choices: if not empty, the answer is one of them and nothing else.
        multiple: the answer may be several of `choices`.
        mask_idx: index of the region's mask that the question is about.
        max_new_tokens: limit of a free answer; an answer from `choices` is always complete.
        num_alternatives: most other choices that the answer lists with their probabilities.
    """

    text: str
    form: QuestionForm = "region"
    choices: tuple[str, ...] = ()
    multiple: bool = False
    mask_idx: int = 0
    max_new_tokens: int = 32
    num_alternatives: int = 5


@dataclass(frozen=True, slots=True)
class RegionRequest:
    """One region: its masks, each bool (H, W) of any resolution, and its questions."""

    masks: tuple[Any, ...]
    questions: tuple[Question, ...]


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """One image with all questions about its regions.

    Attributes:
        image: as in `Osprey.describe`.
        regions: each with its masks and questions.
        image_key: identifies the image's content; None: its pixels are hashed.
    """

    image: Any
    regions: tuple[RegionRequest, ...]
    image_key: str | None = None


def as_requests(
    masks: Sequence[Any], questions: Sequence[Question | str] | None, *, max_new_tokens: int
) -> list[RegionRequest]:
    """Turn the arguments of `Osprey.describe` into one request per region.

    Args:
        masks: one mask per region, or requests if `questions` is None.
        questions: asked about every region; a string becomes a `Question`.
        max_new_tokens: limit of the questions given as strings.

    Raises:
        ValueError: masks were given without questions, or requests with further questions.
    """
    are_requests = [isinstance(mask, RegionRequest) for mask in masks]
    if questions is None:
        if not all(are_requests):
            raise ValueError(
                "expected questions beside the masks, e.g. describe(image, masks, ['What is {region}?']), or a list of "
                f"RegionRequest; got {len(masks)} masks and no questions"
            )
        return list(masks)
    if any(are_requests):
        raise ValueError("a RegionRequest has its own questions; pass masks with questions, or requests without")
    if isinstance(questions, str | Question):
        questions = [questions]
    asked = tuple(
        question if isinstance(question, Question) else Question(question, max_new_tokens=max_new_tokens)
        for question in questions
    )
    return [RegionRequest((mask,), asked) for mask in masks]


WarningKind = Literal["vanished", "coarse", "partly", "unlikely", "cut"]


@dataclass(frozen=True, slots=True)
class AnswerWarning:
    """A reason why an answer may be wrong or incomplete.

    Attributes:
        kind: "vanished" (the region covers no cell at any feature level), "coarse" (at neither of the two fine levels),
            "partly" (not at every level), "unlikely" (an answer outside the list of choices is far more probable),
            "cut" (the answer reached `max_new_tokens`).
        message: text to show to people.
        levels: feature levels at which the region covers no cell.
        mask_idx: index of the mask concerned, in a chat.
    """

    kind: WarningKind
    message: str
    levels: tuple[str, ...] = ()
    mask_idx: int | None = None

    def __str__(self) -> str:
        """Return the message."""
        return self.message


class Alternative(NamedTuple):
    """Another of the choices, with its probability."""

    text: str
    probability: float


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one question.

    Attributes:
        text: the answer as one string; free text ends where a sentence repeats.
        values: the values for a form field: the chosen ones, or the text (a short answer without its final dot).
        confidence: 0..1. With choices, the product of the probabilities renormalised over the allowed tokens; for free
            text, the geometric mean of the token probabilities.
        alternatives: other choices, the most probable first; empty for free text.
        warnings: reasons why the answer may be wrong, for example a region too small for the feature levels.
        token_logprobs: the model's log-probability of each decoded token, not renormalised.
        raw: free text as decoded, for `osprey_model.inputs.protocols`.
    """

    text: str
    values: tuple[str, ...]
    confidence: float
    alternatives: tuple[Alternative, ...] = ()
    warnings: tuple[AnswerWarning, ...] = ()
    token_logprobs: tuple[float, ...] = ()
    raw: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """The reason why a question has no answer. It stands in the answer's place; other questions are answered.

    Attributes:
        kind: name of the error, such as BadImage, BadMask, EmptyMask, BadQuestion, BadChoices, PromptTooLong.
        message: what was expected, what was given, what to do.
        error: the exception itself.
    """

    kind: str
    message: str
    error: Exception = field(compare=False, repr=False)

    @classmethod
    def of(cls, error: Exception) -> Failure:
        """Create the failure that an exception causes."""
        return cls(type(error).__name__, str(error), error)
