"""A conversation in any form -> turns of (message, answer), which `prompts.py` renders.

Accepted are one string, (message, answer) pairs, and transformers' list of role dicts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from osprey_model.inputs.tokenizer import REGION_PLACEHOLDER

Turn = tuple[str, str | None]
Messages = str | Sequence[Turn] | Sequence[Mapping[str, Any]]

_ROLES = ("user", "assistant")


class BadMessages(ValueError):
    """A conversation cannot be continued: a role is unknown, the order is wrong, or there is nothing to answer."""


def as_turns(messages: Messages) -> list[Turn]:
    """Return turns of (message, answer). The last answer is None: it is the one to generate.

    Args:
        messages: the question as a string; or (message, answer) pairs with None as the last answer; or dicts of `role`
            ("user" and "assistant" alternate) and `content` (a string). `{region}` in a message becomes `<mask><pos>`.

    Raises:
        BadMessages: see the class; the message names the entry.
    """
    if isinstance(messages, str):
        messages = [(messages, None)]
    if not messages:
        raise BadMessages("expected at least one message, got none; the last one is the question to answer")
    if isinstance(messages[0], Mapping):
        turns = _from_roles(messages)
    else:
        turns = [_pair(idx, turn) for idx, turn in enumerate(messages)]
    for idx, (_, answer) in enumerate(turns):
        is_last = idx == len(turns) - 1
        if is_last != (answer is None):
            raise BadMessages(
                "expected turns of (message, answer) whose last answer is None: the one to give; "
                f"turn {idx} of {len(turns)} has {'an' if answer is not None else 'no'} answer"
            )
    for idx, text in ((idx, text) for idx, turn in enumerate(turns) for text in turn if text is not None):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise BadMessages(f"turn {idx} is not valid Unicode ({error.reason}): {text!r}") from error
    return [(message.replace("{region}", REGION_PLACEHOLDER), answer) for message, answer in turns]


def _from_roles(messages: Sequence[Any]) -> list[Turn]:
    turns: list[Turn] = []
    for idx, entry in enumerate(messages):
        role, content = entry.get("role"), entry.get("content")
        expected = _ROLES[idx % 2]
        if role not in _ROLES:
            raise BadMessages(f"message {idx} has the unknown role {role!r}; known: {', '.join(_ROLES)}")
        if role != expected:
            raise BadMessages(f"message {idx} is of role {role!r}, expected {expected!r}: user and assistant in turn")
        if not isinstance(content, str):
            raise BadMessages(f"message {idx}: expected content as a string, got {type(content).__name__}")
        if role == "user":
            turns.append((content, None))
        else:
            turns[-1] = (turns[-1][0], content)
    return turns


def _pair(idx: int, turn: Any) -> Turn:
    match turn:
        case (str(message), str() | None as answer):
            return message, answer
    raise BadMessages(f"turn {idx}: expected (message, answer or None) or a dict of role and content, got {turn!r}")
