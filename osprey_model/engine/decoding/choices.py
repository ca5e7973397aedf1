"""Answers from a list of choices: a trie over the tokens of the choices, and the walk of one row through it.

At each step the walk lists the tokens that can follow. The decoder renormalises its probabilities over these tokens and
takes the most probable one. The walk ends as soon as a single choice is left, so most answers cost one or two decode
steps, however long the list is. The probability of the branches that were not taken is given to the alternatives.

# E children of a node, C pairs of a child and a choice below it
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
    """An invalid list of choices."""


def as_choices(choices: Sequence[str]) -> tuple[str, ...]:
    """Return a list of choices as a tuple.

    Raises:
        BadChoices: `choices` is one string, whose letters would be the choices, or an entry is not valid text.
    """
    if isinstance(choices, str):
        raise BadChoices(f"expected a list of choices, got the string {choices!r}; write ({choices!r},)")
    for choice in choices:
        if not isinstance(choice, str) or any("\ud800" <= character <= "\udfff" for character in choice):
            raise BadChoices(f"expected choices of valid text, got {choice!r}")
    return tuple(choices)


@dataclass(slots=True)
class _Node:
    """A sequence of tokens with which at least one choice begins."""

    children: dict[int, _Node] = field(default_factory=dict)
    ends: int | None = None  # the choice that ends here
    choices: set[int] = field(default_factory=set)  # all choices at or below this node
    table: _Table | None = None  # of the children; made when the node is first visited


@dataclass(frozen=True, slots=True)
class _Table:
    """A node's children as arrays: a thousand children cost a few vector operations.

    Attributes:
        tokens_E: token of each child.
        child_C: child of each pair, as an index into `tokens_E`.
        choice_C: choice of each pair, as an index into the trie's choices.
    """

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
    """The choices of a question as token sequences. Of several equal choices only the first is used."""

    def __init__(self, choices: Sequence[str], tokenizer: OspreyTokenizer) -> None:
        """Build the trie.

        Raises:
            BadChoices: there is no choice, or a choice is empty or contains a special token.
        """
        if not choices or not all(choice.strip() for choice in choices):
            raise BadChoices(f"expected at least one choice and no empty one, got {_shown(choices)}")
        self.choices = tuple(choices)
        self.root = _Node()
        # A full stop ends a choice as </s> does: models trained on sentences answer "Red."
        self.end_ids = (tokenizer.eos_token_id, tokenizer.character_id("."))
        self.separator_id = tokenizer.character_id(",")
        self.longest = 0
        spellings = [_spellings(choice) for choice in choices]
        # Add every spelling of every choice. All verbatim spellings come first, so that they win a collision.
        for spelling in range(len(spellings[0])):
            for idx in range(len(choices)):
                ids = tokenizer.encode(spellings[idx][spelling], add_bos=False)
                if any(token_id >= tokenizer.vocab_size or token_id == tokenizer.eos_token_id for token_id in ids):
                    raise BadChoices(f"choice {choices[idx]!r} holds a special token; choices are plain words")
                self.longest = max(self.longest, len(ids))
                self._add(ids, idx)

    def _add(self, ids: Sequence[int], choice_idx: int) -> None:
        # Follow the ids from the root, creating the nodes that are missing.
        node = self.root
        path = [node]
        for token_id in ids:
            node = node.children.setdefault(token_id, _Node())
            path.append(node)
        # The first choice that ends at a node keeps it; all nodes on the way lead to that choice.
        if node.ends is None:
            node.ends = choice_idx
        for step in path:
            step.choices.add(node.ends)


def _spellings(choice: str) -> tuple[str, str, str, str]:
    """Return the ways in which the model may spell a choice: "Traffic_light" also as "traffic light"."""
    words = choice.replace("_", " ").strip()
    return choice.strip(), words, words.lower(), words[:1].upper() + words[1:]


def _shown(choices: Sequence[str]) -> str:
    return f"{list(choices[:5])!r}" + (f" and {len(choices) - 5} more" if len(choices) > 5 else "")


class ChoiceWalk:
    """The walk of one row through a trie: it takes tokens and yields a choice, or a list of choices.

    Attributes:
        chosen: indices of the choices completed so far.
        done: whether the answer is complete.
    """

    def __init__(self, trie: ChoiceTrie, *, multiple: bool = False) -> None:
        self._trie = trie
        self._node = trie.root
        self._multiple = multiple
        self.chosen: list[int] = []
        self.done = False
        self._path_probability = 1.0  # product of the probabilities of the tokens taken
        self._missed = np.zeros(len(trie.choices))  # by choice: probability of branches not taken

    def allowed(self) -> Ints:
        """Return the tokens that may come next: children of the node, then ends, then the separator.

        The result is not empty while the walk is not done. With `multiple`, the answer is a list separated by commas in
        which no choice occurs twice.
        """
        # 1. Children that lead to a choice which has not been taken.
        table = self._table()
        tokens_E = table.tokens_E[self._open_choices(table) > 0] if self.chosen else table.tokens_E
        # 2. Where a choice ends: the tokens that end the answer, and the separator if another choice may follow. A
        # token that is also a child belongs to the longer choice and is not listed twice.
        extra: list[int] = []
        if self._ends_here():
            children = self._node.children
            extra.extend(token for token in self._trie.end_ids if token not in children)
            more_left = len(self.chosen) + 1 < len(self._trie.root.choices)
            if self._multiple and more_left and self._trie.separator_id not in children:
                extra.append(self._trie.separator_id)
        return np.concatenate([tokens_E, np.array(extra, np.int64)]) if extra else tokens_E

    def take(self, tokens: Ints | Sequence[int], probabilities: Floats | Sequence[float]) -> int:
        """Take the most probable token; of equally probable ones the first.

        Args:
            tokens: the result of `allowed`.
            probabilities: of these tokens, renormalised to sum to one.

        Returns:
            The token taken.
        """
        # 1. The options are the children, then the ends, then the separator, as in `allowed`.
        table = self._table()
        of_options = np.array(probabilities, np.float64)
        options = np.array(tokens, np.int64)
        num_children = int((self._open_choices(table) > 0).sum())
        # 2. All end tokens are one option: add their probabilities up at the first one.
        ends = np.flatnonzero(np.isin(options[num_children:], self._trie.end_ids)) + num_children
        if len(ends):
            of_options[ends[0]] = of_options[ends].sum()
            of_options[ends[1:]] = -1.0
        # 3. Take the best option, and share the probability of the others among the choices they lead to.
        best = int(of_options.argmax())
        is_child, is_end = best < num_children, best in ends
        self._note_missed(table, of_options, num_children, best, ends)
        self._path_probability *= float(of_options[best])
        # 4. Move on: into a child, and to the answer if it leads to one choice only ...
        if is_child:
            self._node = self._node.children[int(options[best])]
            if not self._multiple and len(self._node.choices) == 1:
                self.chosen.append(next(iter(self._node.choices)))
                self.done = True
        # ... or complete the choice that ends here, and return to the root for the next one of a list.
        else:
            self._choose()
            self.done = is_end
            self._node = self._trie.root
        return self._trie.end_ids[0] if is_end else int(options[best])

    @property
    def probability(self) -> float:
        """Probability of the answer: of the path taken, and for a single choice also of its other spellings."""
        if self._multiple:
            return self._path_probability
        return min(self._path_probability + float(self._missed[self.chosen].sum()), 1.0)

    def values(self) -> tuple[str, ...]:
        """Return the choices completed so far, spelled as in the list of choices."""
        return tuple(self._trie.choices[idx] for idx in self.chosen)

    def alternatives(self, limit: int) -> list[tuple[str, float]]:
        """Return up to `limit` other choices with their probability, the most probable first.

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
        """Return the number of choices below each child (E,) that have not been taken."""
        child_C = table.child_C[~np.isin(table.choice_C, self.chosen)] if self.chosen else table.child_C
        return np.bincount(child_C, minlength=len(table.tokens_E))

    def _ends_here(self) -> bool:
        return self._node.ends is not None and self._node.ends not in self.chosen

    def _choose(self) -> None:
        if self._node.ends is None:
            raise RuntimeError("a walk ended between choices: allowed() offered an end token where no choice ends")
        self.chosen.append(self._node.ends)

    def _note_missed(self, table: _Table, of_options: Floats, num_children: int, best: int, ends: Ints) -> None:
        """Add the probability of the options that are not taken to the choices they lead to."""
        # 1. A child's probability is shared equally by the open choices below it; the child taken loses nothing.
        open_E = self._open_choices(table)
        per_choice_E = np.zeros(len(open_E))
        per_choice_E[open_E > 0] = of_options[:num_children] / open_E[open_E > 0]
        if best < num_children:
            per_choice_E[np.flatnonzero(open_E > 0)[best]] = 0.0
        # 2. Sum the shares per choice; choices that have been taken get none.
        shares_C = per_choice_E[table.child_C]
        if self.chosen:
            shares_C = np.where(np.isin(table.choice_C, self.chosen), 0.0, shares_C)
        missed = np.bincount(table.choice_C, shares_C, minlength=len(self._missed))
        # 3. If the walk goes on where a choice ends, that choice gets the probability of ending.
        if len(ends) and best not in ends and self._node.ends is not None:
            missed[self._node.ends] += of_options[ends[0]]
        # 4. All of it is conditional on the path so far.
        self._missed += self._path_probability * missed
