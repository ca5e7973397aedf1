"""The trie of choices and a row's walk through it, with given probabilities."""

from __future__ import annotations

import pytest

from osprey_model.engine.decoding.choices import ChoiceTrie, ChoiceWalk
from osprey_model.inputs.tokenizer import OspreyTokenizer


def walk_towards(walk: ChoiceWalk, wanted: list[int], share: float = 0.9) -> list[int]:
    """Give each wanted token `share` of the probability and the others the rest; return the tokens taken."""
    taken = []
    for token in wanted:
        if walk.done:
            break
        tokens = walk.allowed()
        assert token in tokens
        rest = (1 - share) / max(len(tokens) - 1, 1)
        probabilities = [1.0 if len(tokens) == 1 else share if offer == token else rest for offer in tokens]
        taken.append(walk.take(tokens, probabilities))
    return taken


def ids(tokenizer: OspreyTokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, add_bos=False)


def test_a_choice_that_begins_another_can_be_chosen(golden_tokenizer: OspreyTokenizer) -> None:
    """With the choices `hat` and `hat rack`, </s> is allowed behind `hat`."""
    trie = ChoiceTrie(["hat", "hat rack", "lamp"], golden_tokenizer)
    short = ChoiceWalk(trie)
    walk_towards(short, [*ids(golden_tokenizer, "hat"), golden_tokenizer.eos_token_id])
    assert (short.done, short.values()) == (True, ("hat",))
    long = ChoiceWalk(trie)
    walk_towards(long, ids(golden_tokenizer, "hat rack"))
    assert (long.done, long.values()) == (True, ("hat rack",))


def test_a_walk_stops_when_one_choice_is_left(golden_tokenizer: OspreyTokenizer) -> None:
    """A walk takes no further steps once the answer is certain."""
    walk = ChoiceWalk(ChoiceTrie(["window", "bridge"], golden_tokenizer))
    taken = walk_towards(walk, ids(golden_tokenizer, "window"))
    assert walk.values() == ("window",)
    assert len(taken) == 1


def test_probabilities_of_choice_and_alternatives_sum_to_one(golden_tokenizer: OspreyTokenizer) -> None:
    """The probability of branches not taken is given to the choices in them."""
    walk = ChoiceWalk(ChoiceTrie(["hat", "hat rack", "lamp", "dog", "door"], golden_tokenizer))
    walk_towards(walk, [*ids(golden_tokenizer, "hat"), golden_tokenizer.eos_token_id], share=0.8)
    total = walk.probability + sum(mass for _, mass in walk.alternatives(10))
    assert total == pytest.approx(1.0)
    assert {text for text, _ in walk.alternatives(10)} == {"hat rack", "lamp", "dog", "door"}


def test_a_full_stop_ends_a_choice(golden_tokenizer: OspreyTokenizer) -> None:
    """`Red.` is the choice `Red`: the probabilities of `.` and </s> are added."""
    trie = ChoiceTrie(["hat", "hat rack"], golden_tokenizer)
    walk = ChoiceWalk(trie)
    walk_towards(walk, ids(golden_tokenizer, "hat"), share=1.0)
    tokens = walk.allowed()
    votes = {golden_tokenizer.eos_token_id: 0.3, golden_tokenizer.character_id("."): 0.3}
    walk.take(tokens, [votes.get(token, 0.4) for token in tokens])
    assert walk.values() == ("hat",)
    assert walk.probability == pytest.approx(0.6)


def test_other_spellings_of_a_choice_lead_to_it(golden_tokenizer: OspreyTokenizer) -> None:
    """The tokens of `traffic light` lead to the choice `Traffic_light`."""
    for said in ("traffic light", "Traffic light", "Traffic_light"):
        walk = ChoiceWalk(ChoiceTrie(["Traffic_light", "Tram"], golden_tokenizer))
        walk_towards(walk, ids(golden_tokenizer, said))
        assert walk.values() == ("Traffic_light",)


def test_a_list_never_repeats_and_ends(golden_tokenizer: OspreyTokenizer) -> None:
    """No choice is allowed twice; behind the last unused choice only the end is allowed."""
    comma, eos = golden_tokenizer.character_id(","), golden_tokenizer.eos_token_id
    walk = ChoiceWalk(ChoiceTrie(["red", "blue"], golden_tokenizer), multiple=True)
    walk_towards(walk, [*ids(golden_tokenizer, "blue"), comma])
    offered = walk.allowed()
    assert ids(golden_tokenizer, "blue")[0] not in offered or ids(golden_tokenizer, "red")[0] == offered[0]
    walk_towards(walk, ids(golden_tokenizer, "red"))
    assert comma not in walk.allowed()
    walk_towards(walk, [eos])
    assert walk.done
    assert walk.values() == ("blue", "red")


def test_a_list_with_repetitions_ends(golden_tokenizer: OspreyTokenizer) -> None:
    """Equal choices count as one: behind `red` there is nothing left to add."""
    comma, eos = golden_tokenizer.character_id(","), golden_tokenizer.eos_token_id
    walk = ChoiceWalk(ChoiceTrie(["red", "red", "red"], golden_tokenizer), multiple=True)
    walk_towards(walk, ids(golden_tokenizer, "red"))
    assert comma not in walk.allowed()
    walk_towards(walk, [eos])
    assert walk.values() == ("red",)
    assert walk.alternatives(5) == []


def test_a_choice_with_a_comma_in_it(golden_tokenizer: OspreyTokenizer) -> None:
    """With the choices `hat` and `hat, old`, the comma behind `hat` is allowed once, as part of the longer one."""
    comma = golden_tokenizer.character_id(",")
    walk = ChoiceWalk(ChoiceTrie(["hat", "hat, old", "lamp"], golden_tokenizer), multiple=True)
    walk_towards(walk, ids(golden_tokenizer, "hat"))
    assert list(walk.allowed()).count(comma) == 1


def test_non_ascii_choices(golden_tokenizer: OspreyTokenizer) -> None:
    """Choices that the vocabulary spells in bytes can be chosen, also if their bytes begin alike."""
    words = ["猫", "犬", "狐", "Größe", "naïve café", "Ж"]
    for word in words:
        walk = ChoiceWalk(ChoiceTrie(words, golden_tokenizer))
        walk_towards(walk, ids(golden_tokenizer, word))
        assert walk.values() == (word,)


def test_a_single_choice_is_certain(golden_tokenizer: OspreyTokenizer) -> None:
    """A list of one choice has probability 1 and no alternatives, whatever the model's probabilities are."""
    walk = ChoiceWalk(ChoiceTrie(["lamp"], golden_tokenizer))
    tokens = walk.allowed()
    walk.take(tokens, [1 / len(tokens)] * len(tokens))
    assert (walk.done, walk.values(), walk.alternatives(5)) == (True, ("lamp",), [])
    assert walk.probability == pytest.approx(1.0)


@pytest.mark.parametrize("choices", [[], ["dog", " "], ["a</s>b"]])
def test_lists_that_cannot_be_offered(choices: list[str], golden_tokenizer: OspreyTokenizer) -> None:
    """An empty list, an empty choice and a special token raise an error."""
    with pytest.raises(ValueError, match=r"choice"):
        ChoiceTrie(choices, golden_tokenizer)
