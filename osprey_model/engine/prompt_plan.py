"""A `Question` -> the ids behind an image's prefix, and where its region stands in them.

The words in front of the region are the same for every region (`lead`), so they need to be run only once.
"""

from __future__ import annotations

from dataclasses import dataclass

from osprey_model.config import IMAGE_TOKEN_ID
from osprey_model.engine.decoding.choices import ChoiceTrie, ChoiceWalk, as_choices
from osprey_model.engine.requests import BadQuestion, PromptTooLong, Question
from osprey_model.inputs.prompts import INFERENCE, SHARED_OPENING, question_message
from osprey_model.inputs.tokenizer import OspreyTokenizer

_MAX_TRIES = 64


@dataclass(frozen=True, slots=True)
class Plan:
    """How a question is run.

    Attributes:
        shared: how many ids of the image's opening the prompt begins with.
        lead_ids: between these and the region's placeholder.
        tail_ids: from the placeholder to the end.
        limit: of the answer's tokens.
        trie: of its choices, None for free text.
    """

    question: Question
    shared: int
    lead_ids: tuple[int, ...]
    tail_ids: tuple[int, ...]
    limit: int
    trie: ChoiceTrie | None

    @property
    def capacity(self) -> int:
        """Own positions a row of it may come to need."""
        return len(self.lead_ids) + len(self.tail_ids) + self.limit - 1

    def walk(self) -> ChoiceWalk | None:
        """A fresh walk through the choices."""
        return None if self.trie is None else ChoiceWalk(self.trie, multiple=self.question.multiple)


class Planner:
    """Questions of one model; keeps the tries of the lists it saw last."""

    def __init__(self, tokenizer: OspreyTokenizer, *, num_image_tokens: int, context: int) -> None:
        """Take what plans depend on.

        Args:
            tokenizer: of the model.
            num_image_tokens: positions one image takes.
            context: positions of the decoder.
        """
        self._tokenizer = tokenizer
        self._opening = tuple(tokenizer.encode_prompt(SHARED_OPENING))
        self._num_image_tokens = num_image_tokens
        self._context = context
        self._tries: dict[tuple[str, ...], ChoiceTrie] = {}

    def plan(self, question: Question) -> Plan:
        """Tokenize a question.

        Raises:
            BadQuestion: a text that does not fit its form.
            BadChoices: a list that cannot be offered.
            PromptTooLong: no room for an answer.
        """
        check_text(question.text)
        try:
            message = question_message(question.text, question.form)
        except ValueError as error:
            raise BadQuestion(str(error)) from error
        if question.max_new_tokens < 1:
            raise BadQuestion(f"expected max_new_tokens of at least 1, got {question.max_new_tokens}")
        ids = self._tokenizer.encode_prompt(SHARED_OPENING + INFERENCE.turn(message))
        shared = shared_length(self._opening, ids)
        return self.plan_ids(question, ids, shared, ids.index(self._tokenizer.mask_token_id, shared))

    def plan_ids(self, question: Question, ids: list[int], shared: int, region_at: int | None = None) -> Plan:
        """A prompt that is tokenized already; without `region_at` it has no lead.

        Raises:
            BadChoices: a list that cannot be offered.
            PromptTooLong: no room for an answer.
        """
        region_at = shared if region_at is None else region_at
        trie, limit, needed = None, question.max_new_tokens, 1
        if question.choices:
            trie = self._trie(as_choices(question.choices))
            limit = needed = max(limit, trie.longest + 1)
        room = room_for(self._context, prefix_positions(ids, self._num_image_tokens), needed)
        return Plan(question, shared, tuple(ids[shared:region_at]), tuple(ids[region_at:]), min(limit, room), trie)

    def _trie(self, choices: tuple[str, ...]) -> ChoiceTrie:
        if choices not in self._tries:
            while len(self._tries) >= _MAX_TRIES:
                self._tries.pop(next(iter(self._tries)))
            self._tries[choices] = ChoiceTrie(choices, self._tokenizer)
        return self._tries[choices]


def check_text(text: object) -> None:
    """Whether a tokenizer can read it.

    Raises:
        BadQuestion: not a string, or one with lone surrogates (half of a character, no UTF-8).
    """
    if not isinstance(text, str):
        raise BadQuestion(f"expected a question's text as a string, got {type(text).__name__} {text!r}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadQuestion(f"a question must be valid Unicode, got {text!r}: {error.reason}") from error


def shared_length(opening: tuple[int, ...], prompt: list[int]) -> int:
    """How many leading ids a prompt has in common with the opening.

    Tokens can merge across the boundary of opening and question, so this compares ids instead of trusting the
    text.
    """
    pairs = zip(opening, prompt, strict=False)
    return next((idx for idx, (one, other) in enumerate(pairs) if one != other), min(len(opening), len(prompt)))


def prefix_positions(ids: list[int], num_image_tokens: int) -> int:
    """Positions that ids take once the image is in its place."""
    return len(ids) + ids.count(IMAGE_TOKEN_ID) * (num_image_tokens - 1)


def room_for(context: int, prompt_length: int, needed: int) -> int:
    """Positions left for an answer.

    Raises:
        PromptTooLong: fewer than needed.
    """
    if context - prompt_length < needed:
        raise PromptTooLong(
            f"the prompt takes {prompt_length} of {context} positions, which leaves "
            f"{max(context - prompt_length, 0)} where the answer needs {needed}; shorten the question"
        )
    return context - prompt_length
