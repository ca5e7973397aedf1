"""Closed answers: a trie over the tokens of the choices, and one row's walk through it.

A walk offers the tokens that can continue; the decoder renormalises its probabilities over them and takes the
best. It ends as soon as a single choice is left, so most choices cost one or two decode steps however long
the list is. The probability of the branches not taken becomes the alternatives.

# E ways on from a node (children, then ends, then the separator), C pairs of a child and a choice below it
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from osprey_model.inputs.tokenizer import OspreyTokenizer

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class BadChoices(ValueError):
    """A list of choices that cannot be offered."""


def as_choices(choices: Sequence[str]) -> tuple[str, ...]:
    """A list of choices as it is kept.

    Raises:
        BadChoices: one string, whose letters would be the choices, or entries that are no text.
    """
    if isinstance(choices, str):
        raise BadChoices(f"expected a list of choices, got the string {choices!r}; write ({choices!r},)")
    for choice in choices:
        if not isinstance(choice, str) or any("\ud800" <= character <= "\udfff" for character in choice):
            raise BadChoices(f"expected choices of valid text, got {choice!r}")
    return tuple(choices)


@dataclass(slots=True)
class _Node:
    children: dict[int, _Node] = field(default_factory=dict)
    ends: int | None = None  # the choice that ends here
    choices: set[int] = field(default_factory=set)  # all choices at or below
    table: _Table | None = None


@dataclass(frozen=True, slots=True)
class _Table:
    """A node's children as arrays, so that a thousand of them cost a few vector operations."""

    tokens_E: Ints
    child_C: Ints
    choice_C: Ints

    @classmethod
    def of(cls, node: _Node) -> _Table:
        sizes = [len(child.choices) for child in node.children.values()]
        choices = [choice for child in node.children.values() for choice in sorted(child.choices)]
        return cls(
            np.fromiter(node.children, np.int64, len(sizes)),
            np.repeat(np.arange(len(sizes)), sizes),
            np.array(choices, np.int64),
        )


class ChoiceTrie:
    """The choices of a question as token sequences; of equal ones the first counts."""

    def __init__(self, choices: Sequence[str], tokenizer: OspreyTokenizer) -> None:
        """Build the trie.

        Raises:
            BadChoices: no choice, an empty one, or one that holds a special token.
        """
        if not choices or not all(choice.strip() for choice in choices):
            raise BadChoices(f"expected at least one choice and no empty one, got {_shown(choices)}")
        self.choices = tuple(choices)
        self.root = _Node()
        # A full stop ends a choice as </s> does: models trained on sentences say "Red."
        self.end_ids = (tokenizer.eos_token_id, tokenizer.character_id("."))
        self.separator_id = tokenizer.character_id(",")
        self.longest = 0
        spellings = [_spellings(choice) for choice in choices]
        for spelling in range(len(spellings[0])):  # verbatim spellings first: they win a collision
            for idx in range(len(choices)):
                ids = tokenizer.encode(spellings[idx][spelling], add_bos=False)
                if any(token_id >= tokenizer.vocab_size or token_id == tokenizer.eos_token_id for token_id in ids):
                    raise BadChoices(f"choice {choices[idx]!r} holds a special token; choices are plain words")
                self.longest = max(self.longest, len(ids))
                self._add(ids, idx)

    def _add(self, ids: Sequence[int], choice_idx: int) -> None:
        node = self.root
        path = [node]
        for token_id in ids:
            node = node.children.setdefault(token_id, _Node())
            path.append(node)
        if node.ends is None:
            node.ends = choice_idx
        for step in path:
            step.choices.add(node.ends)


def _spellings(choice: str) -> tuple[str, str, str, str]:
    """The model may say a choice in its own spelling: "Traffic_light" as "traffic light"."""
    words = choice.replace("_", " ").strip()
    return choice.strip(), words, words.lower(), words[:1].upper() + words[1:]


def _shown(choices: Sequence[str]) -> str:
    return f"{list(choices[:5])!r}" + (f" and {len(choices) - 5} more" if len(choices) > 5 else "")


class ChoiceWalk:
    """One row's way through a trie: tokens in, a choice (or a list of choices) out."""

    def __init__(self, trie: ChoiceTrie, *, multiple: bool = False) -> None:
        self._trie = trie
        self._node = trie.root
        self._multiple = multiple
        self.chosen: list[int] = []
        self.done = False
        self._path_probability = 1.0
        self._missed = np.zeros(len(trie.choices))

    def allowed(self) -> Ints:
        """The tokens that may come next, children of the node first; never empty while not done.

        With `multiple`, the answer is a list separated by commas in which no choice comes twice.
        """
        table = self._table()
        tokens_E = table.tokens_E[self._open_choices(table) > 0] if self.chosen else table.tokens_E
        extra: list[int] = []
        if self._ends_here():
            children = self._node.children
            extra.extend(token for token in self._trie.end_ids if token not in children)
            more_left = len(self.chosen) + 1 < len(self._trie.root.choices)
            if self._multiple and more_left and self._trie.separator_id not in children:
                extra.append(self._trie.separator_id)
        return np.concatenate([tokens_E, np.array(extra, np.int64)]) if extra else tokens_E

    def take(self, tokens: Ints | Sequence[int], probabilities: Floats | Sequence[float]) -> int:
        """Go the most probable way; of equal ones the first.

        Args:
            tokens: what `allowed` gave.
            probabilities: of these tokens, renormalised to sum to one.

        Returns:
            The token taken.
        """
        table = self._table()
        of_ways = np.array(probabilities, np.float64)
        ways = np.array(tokens, np.int64)
        num_children = int((self._open_choices(table) > 0).sum())
        # All ways to end are one way: their probabilities add up.
        ends = np.flatnonzero(np.isin(ways[num_children:], self._trie.end_ids)) + num_children
        if len(ends):
            of_ways[ends[0]] = of_ways[ends].sum()
            of_ways[ends[1:]] = -1.0
        best = int(of_ways.argmax())
        is_child, is_end = best < num_children, best in ends
        self._note_missed(table, of_ways, num_children, best, ends)
        self._path_probability *= float(of_ways[best])
        if is_child:
            self._node = self._node.children[int(ways[best])]
            if not self._multiple and len(self._node.choices) == 1:
                self.chosen.append(next(iter(self._node.choices)))
                self.done = True
        else:
            self._choose()
            self.done = is_end
            self._node = self._trie.root
        return self._trie.end_ids[0] if is_end else int(ways[best])

    @property
    def probability(self) -> float:
        """Of the answer: the way taken and, for a single choice, its other spellings on ways not taken."""
        if self._multiple:
            return self._path_probability
        return min(self._path_probability + float(self._missed[self.chosen].sum()), 1.0)

    def values(self) -> tuple[str, ...]:
        """The choices taken so far, as they were given."""
        return tuple(self._trie.choices[idx] for idx in self.chosen)

    def alternatives(self, limit: int) -> list[tuple[str, float]]:
        """Other choices and their probability, best first.

        The probability of a branch that the walk did not enter is shared equally by the choices in it.
        """
        missed = self._missed.copy()
        missed[self.chosen] = 0.0
        ranked = np.argsort(-missed, kind="stable")[:limit]
        return [(self._trie.choices[idx], float(missed[idx])) for idx in ranked if missed[idx] > 0]

    def _table(self) -> _Table:
        if self._node.table is None:
            self._node.table = _Table.of(self._node)
        return self._node.table

    def _open_choices(self, table: _Table) -> Ints:
        """How many choices below each child have not been taken."""
        child_C = table.child_C[~np.isin(table.choice_C, self.chosen)] if self.chosen else table.child_C
        return np.bincount(child_C, minlength=len(table.tokens_E))

    def _ends_here(self) -> bool:
        return self._node.ends is not None and self._node.ends not in self.chosen

    def _choose(self) -> None:
        if self._node.ends is None:
            raise RuntimeError("a walk ended between choices: allowed() offered an end token where no choice ends")
        self.chosen.append(self._node.ends)

    def _note_missed(self, table: _Table, of_ways: Floats, num_children: int, best: int, ends: Ints) -> None:
        open_E = self._open_choices(table)
        per_choice_E = np.zeros(len(open_E))
        per_choice_E[open_E > 0] = of_ways[:num_children] / open_E[open_E > 0]
        if best < num_children:
            per_choice_E[np.flatnonzero(open_E > 0)[best]] = 0.0
        shares_C = per_choice_E[table.child_C]
        if self.chosen:
            shares_C = np.where(np.isin(table.choice_C, self.chosen), 0.0, shares_C)
        missed = np.bincount(table.choice_C, shares_C, minlength=len(self._missed))
        if len(ends) and best not in ends and self._node.ends is not None:
            missed[self._node.ends] += of_ways[ends[0]]
        self._missed += self._path_probability * missed
