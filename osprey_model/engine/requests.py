"""What is asked and what is answered. No torch, so callers may build these anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from osprey_model.inputs.prompts import QuestionForm


class BadQuestion(ValueError):
    """A question that does not fit its form, or asks about a mask that the region does not have."""


class PromptTooLong(ValueError):
    """Prompt and image leave no room for an answer in the decoder's context."""


@dataclass(frozen=True, slots=True)
class Question:
    """One question about one region.

    Attributes:
        text: holds `{region}`.
        form: "region" puts the region's placeholder there; "part" is the trained short form with `region1`.
        choices: not empty: the answer is one of them (several with `multiple`) and nothing else.
        mask_idx: which of the region's masks is asked about.
        max_new_tokens: limit of a free answer; one from `choices` is always complete.
        num_alternatives: how many of the other choices are told with their probabilities.
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
    """One image and all that is asked about it.

    Attributes:
        image: as in `Osprey.describe`.
        regions: each with its masks and questions.
        image_key: what identifies the image's content; None: its pixels are hashed.
    """

    image: Any
    regions: tuple[RegionRequest, ...]
    image_key: str | None = None


def as_requests(
    masks: Sequence[Any], questions: Sequence[Question | str] | None, *, max_new_tokens: int
) -> list[RegionRequest]:
    """What `Osprey.describe` was asked, as one request per region.

    Args:
        masks: with `questions` one mask per region; without, requests that have questions of their own.
        questions: asked about every region; a string is a `Question` with that limit of tokens.
        max_new_tokens: the limit.

    Raises:
        ValueError: masks without questions, or requests with further questions.
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
    """What the asker should know about an answer.

    Attributes:
        kind: "vanished" (the region is lost at every feature level), "coarse" (at both fine ones), "partly" (at some
            level), "unlikely" (the model would rather say what is not in the list), "cut" (at `max_new_tokens`).
        message: for people.
        levels: the feature levels at which the region covers no cell.
        mask_idx: in a chat, which of its masks.
    """

    kind: WarningKind
    message: str
    levels: tuple[str, ...] = ()
    mask_idx: int | None = None

    def __str__(self) -> str:
        """The message."""
        return self.message


class Alternative(NamedTuple):
    """Another of the choices, with its probability."""

    text: str
    probability: float


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one question.

    Attributes:
        text: the answer as one string; free text is cut where it begins to repeat itself.
        values: what a form field takes: the chosen values, or the text (a short answer without its final dot).
        confidence: 0..1. With choices the product of the probabilities renormalised over the allowed
            continuations; for free text the geometric mean of the token probabilities.
        alternatives: other choices, most probable first; empty for free text.
        warnings: what the asker should know, e.g. that the region was too small to be seen.
        token_logprobs: the model's own log-probability of each decoded token (not renormalised).
        raw: free text as it was decoded, for `osprey_model.inputs.protocols`.
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
    """Why a question has no answer. Stands in an answer's place; the other questions are unharmed.

    Attributes:
        kind: name of the error, such as BadImage, BadMask, EmptyMask, BadQuestion, BadChoices, PromptTooLong.
        message: what was expected, what came, what to do.
        error: the exception itself.
    """

    kind: str
    message: str
    error: Exception = field(compare=False, repr=False)

    @classmethod
    def of(cls, error: Exception) -> Failure:
        """Tell an error."""
        return cls(type(error).__name__, str(error), error)
