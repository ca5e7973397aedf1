"""Closed answers: a trie over the tokens of the choices, and one row's walk through it.

A walk offers the tokens that can continue; the decoder renormalises its probabilities over them and takes the
best. It ends as soon as a single choice is left, so most choices cost one or two decode steps however long
the list is. The probability of the branches not taken becomes the alternatives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from osprey_model.tokenizer import OspreyTokenizer


@dataclass(slots=True)
class _Node:
    children: dict[int, _Node] = field(default_factory=dict)
    ends: int | None = None  # the choice that ends here
    choices: set[int] = field(default_factory=set)  # all choices at or below


class ChoiceTrie:
    """The choices of a question as token sequences."""

    def __init__(self, choices: Sequence[str], tokenizer: OspreyTokenizer) -> None:
        """Build the trie.

        Raises:
            ValueError: no choice, or an empty one.
        """
        if not choices or not all(choice.strip() for choice in choices):
            raise ValueError(f"expected at least one choice and no empty one, got {list(choices)!r}")
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
                    raise ValueError(f"choice {choices[idx]!r} holds a special token; choices are plain words")
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


class ChoiceWalk:
    """One row's way through a trie: tokens in, a choice (or a list of choices) out."""

    def __init__(self, trie: ChoiceTrie, *, multiple: bool = False) -> None:
        self._trie = trie
        self._node = trie.root
        self._multiple = multiple
        self.chosen: list[int] = []
        self.done = False
        self._path_probability = 1.0
        self._missed: dict[int, float] = {}

    def allowed(self) -> list[int]:
        """The tokens that may come next; never empty while not done.

        With `multiple`, the answer is a list separated by commas in which no choice comes twice.
        """
        used = set(self.chosen)
        tokens = [token for token, child in self._node.children.items() if child.choices - used]
        if self._ends_here():
            tokens.extend(token for token in self._trie.end_ids if token not in self._node.children)
            if self._multiple and len(used) + 1 < len(self._trie.choices):
                tokens.append(self._trie.separator_id)
        return tokens

    def take(self, tokens: Sequence[int], probabilities: Sequence[float]) -> int:
        """Go the most probable way.

        Args:
            tokens: what `allowed` gave.
            probabilities: of these tokens, renormalised to sum to one.

        Returns:
            The token taken.
        """
        # All ways to end are one way: their probabilities add up.
        ways: dict[int, float] = {}
        for token, probability in zip(tokens, probabilities, strict=True):
            way = self._trie.end_ids[0] if self._ends(token) else token
            ways[way] = ways.get(way, 0.0) + probability
        token = max(ways, key=lambda way: ways[way])
        self._note_missed(ways, token)
        self._path_probability *= ways[token]
        if self._ends(token):
            self._choose()
            self.done = True
        elif self._node.children.get(token) is None:  # the separator
            self._choose()
            self._node = self._trie.root
        else:
            self._node = self._node.children[token]
            if not self._multiple and len(self._node.choices) == 1:
                self.chosen.append(next(iter(self._node.choices)))
                self.done = True
        return token

    @property
    def probability(self) -> float:
        """Of the answer: the way taken and, for a single choice, its other spellings on ways not taken."""
        if self._multiple:
            return self._path_probability
        return min(self._path_probability + sum(self._missed.get(idx, 0.0) for idx in self.chosen), 1.0)

    def values(self) -> tuple[str, ...]:
        """The choices taken so far, as they were given."""
        return tuple(self._trie.choices[idx] for idx in self.chosen)

    def alternatives(self, limit: int) -> list[tuple[str, float]]:
        """Other choices and their probability, best first.

        The probability of a branch that the walk did not enter is shared equally by the choices in it.
        """
        missed = {idx: mass for idx, mass in self._missed.items() if idx not in self.chosen}
        ranked = sorted(missed.items(), key=lambda entry: (-entry[1], entry[0]))
        return [(self._trie.choices[idx], mass) for idx, mass in ranked[:limit]]

    def _ends_here(self) -> bool:
        return self._node.ends is not None and self._node.ends not in self.chosen

    def _ends(self, token: int) -> bool:
        return token in self._trie.end_ids and token not in self._node.children

    def _choose(self) -> None:
        if self._node.ends is None:
            raise RuntimeError("a walk ended between choices: allowed() offered an end token where no choice ends")
        self.chosen.append(self._node.ends)

    def _note_missed(self, ways: dict[int, float], taken: int) -> None:
        for token, probability in ways.items():
            if token == taken:
                continue
            child = self._node.children.get(token)
            if child is not None:
                choices = child.choices - set(self.chosen)
            elif self._ends(token) and self._node.ends is not None:
                choices = {self._node.ends}
            else:
                continue
            share = self._path_probability * probability / len(choices)
            for idx in choices:
                self._missed[idx] = self._missed.get(idx, 0.0) + share
