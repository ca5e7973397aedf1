"""Conversations in three forms become turns; those that cannot be continued raise an error."""

from __future__ import annotations

from typing import Any

import pytest

from osprey_model.inputs.messages import BadMessages, as_turns


@pytest.mark.parametrize(
    ("given", "turns"),
    [
        ("What is {region}?", [("What is <mask><pos>?", None)]),
        ([("a", "b"), ("c", None)], [("a", "b"), ("c", None)]),
        (
            [
                {"role": "user", "content": "a"},
                {"role": "assistant", "content": "b"},
                {"role": "user", "content": "{region}"},
            ],
            [("a", "b"), ("<mask><pos>", None)],
        ),
    ],
)
def test_every_form(given: Any, turns: list[tuple[str, str | None]]) -> None:
    """A string, pairs and role dicts become turns."""
    assert as_turns(given) == turns


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "at least one message"),
        ([("a", "b")], "whose last answer is None"),
        ([("a", None), ("b", None)], "turn 0 of 2 has no answer"),
        ([("a",)], r"turn 0: expected \(message, answer or None\)"),
        ([{"role": "system", "content": "a"}], "message 0 has the unknown role 'system'; known: user, assistant"),
        ([{"role": "assistant", "content": "a"}], "message 0 is of role 'assistant', expected 'user'"),
        ([("a", "b"), ("\ud800", None)], "turn 1 is not valid Unicode"),
        ([{"role": "user", "content": [1]}], "message 0: expected content as a string, got list"),
        ([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "whose last answer is None"),
    ],
)
def test_what_cannot_be_continued(given: Any, said: str) -> None:
    """The error names the entry and what was expected."""
    with pytest.raises(BadMessages, match=said):
        as_turns(given)
