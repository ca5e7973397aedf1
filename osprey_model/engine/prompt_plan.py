"""A `Question` -> the ids of its prompt, split where the image prefix ends and where its region stands.

The ids between the image prefix and the region are the same for every region: this prompt prefix is run only once.
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
    """The prompt of a question.

    Attributes:
        question: the question itself.
        shared: number of ids at its beginning that are also those of the image's opening.
        prompt_prefix_ids: ids from there to the region's placeholder.
        tail_ids: ids from the placeholder to the end.
        limit: most tokens of the answer.
        trie: of the choices; None for free text.
    """

    question: Question
    shared: int
    prompt_prefix_ids: tuple[int, ...]
    tail_ids: tuple[int, ...]
    limit: int
    trie: ChoiceTrie | None

    @property
    def capacity(self) -> int:
        """Most own positions that a row of this question can need."""
        return len(self.prompt_prefix_ids) + len(self.tail_ids) + self.limit - 1

    def walk(self) -> ChoiceWalk | None:
        """Start a new walk through the choices; None for free text."""
        return None if self.trie is None else ChoiceWalk(self.trie, multiple=self.question.multiple)


class Planner:
    """Plans the questions of one model. It keeps the tries of the last 64 lists of choices."""

    def __init__(self, tokenizer: OspreyTokenizer, *, num_image_tokens: int, context: int) -> None:
        """Create a planner.

        Args:
            tokenizer: of the model.
            num_image_tokens: positions that one image takes.
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
            BadQuestion: the text does not fit the question's form.
            BadChoices: an invalid list of choices.
            PromptTooLong: the prompt leaves no room for an answer.
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
        """Plan a prompt that is already tokenized.

        Args:
            question: its choices and limits apply.
            ids: of the whole prompt.
            shared: number of ids at the beginning that are also those of the image's opening.
            region_at: index of the region's placeholder; None: the plan has no prompt prefix.

        Raises:
            BadChoices: an invalid list of choices.
            PromptTooLong: the prompt leaves no room for an answer.
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
    """Check that a tokenizer can read a question's text.

    Raises:
        BadQuestion: it is not a string, or it has lone surrogates (half of a character), which are not valid UTF-8.
    """
    if not isinstance(text, str):
        raise BadQuestion(f"expected a question's text as a string, got {type(text).__name__} {text!r}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadQuestion(f"a question must be valid Unicode, got {text!r}: {error.reason}") from error


def shared_length(opening: tuple[int, ...], prompt: list[int]) -> int:
    """Return the number of leading ids that a prompt has in common with the opening.

    This compares ids, not texts, because tokens can merge across the boundary of opening and question.
    """
    pairs = zip(opening, prompt, strict=False)
    return next((idx for idx, (one, other) in enumerate(pairs) if one != other), min(len(opening), len(prompt)))


def prefix_positions(ids: list[int], num_image_tokens: int) -> int:
    """Return the number of positions that ids take after the image tokens have been inserted."""
    return len(ids) + ids.count(IMAGE_TOKEN_ID) * (num_image_tokens - 1)


def room_for(context: int, prompt_length: int, needed: int) -> int:
    """Return the number of positions left for an answer.

    Raises:
        PromptTooLong: they are fewer than needed.
    """
    if context - prompt_length < needed:
        raise PromptTooLong(
            f"the prompt takes {prompt_length} of {context} positions, which leaves "
            f"{max(context - prompt_length, 0)} where the answer needs {needed}; shorten the question"
        )
    return context - prompt_length
