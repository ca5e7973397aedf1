"""Labels and batches; parity with the reference is in `parity/test_tokenization.py`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from osprey_model.config import IGNORE_INDEX
from osprey_model.data.collate import Sample, collate
from osprey_model.data.conversation import encode_conversation, turns_of
from osprey_model.inputs.prompts import PREFIX_P
from osprey_model.inputs.tokenizer import OspreyTokenizer


@pytest.fixture(scope="module")
def tokenizer(golden_dir: Path) -> OspreyTokenizer:
    return OspreyTokenizer.from_folder(golden_dir / "tokenizer")


def test_exactly_the_answers_are_learned(tokenizer: OspreyTokenizer) -> None:
    """In a conversation of two turns, the labels are the two answers with their </s>, and no token of the questions."""
    encoded = encode_conversation(tokenizer, [(f"{PREFIX_P}What is <mask><pos>?", "a dog"), ("Why?", "It barks.")])
    learned = [label for label in encoded.labels if label != IGNORE_INDEX]
    expected = [*tokenizer.encode("a dog</s>", add_bos=False), *tokenizer.encode("It barks.</s>", add_bos=False)]
    assert learned == expected


def test_a_placeholder_inside_an_answer_is_not_learned(tokenizer: OspreyTokenizer) -> None:
    """Placeholder ids have no row in the output head, so their labels are ignored."""
    encoded = encode_conversation(tokenizer, [(f"{PREFIX_P}Which?", "this: <mask><pos>")])
    assert max(encoded.labels) < tokenizer.vocab_size
    assert tokenizer.mask_token_id in encoded.input_ids


@pytest.mark.parametrize("roles", [["human"], ["human", "human"], ["gpt", "human"], ["human", "gpt", "gpt", "human"]])
def test_turns_that_do_not_alternate_are_refused(roles: list[str]) -> None:
    """Roles that do not alternate raise an error; the reference drops or masks such samples silently."""
    with pytest.raises(ValueError, match="alternate"):
        turns_of([{"from": role, "value": "x"} for role in roles])


def test_a_batch_is_padded_right_and_a_real_unk_counts(tokenizer: OspreyTokenizer) -> None:
    """The attention mask is made from the lengths, not from the padding id."""
    long = encode_conversation(tokenizer, [(f"{PREFIX_P}What is <mask><pos>?", "a dog")])
    short = encode_conversation(tokenizer, [("<unk> why?", "yes")])
    image = torch.ones(3, 4, 4)
    batch = collate(
        [Sample(long, image, torch.ones(1, 5, 5)), Sample(short, None, None)], pad_token_id=tokenizer.pad_token_id
    )
    assert batch["attention_mask"].sum(dim=1).tolist() == [len(long.input_ids), len(short.input_ids)]
    assert batch["input_ids"][1, : len(short.input_ids)].tolist() == short.input_ids
    assert set(batch["labels"][1, len(short.input_ids) :].tolist()) <= {IGNORE_INDEX}
    assert batch["images"] is not None
    assert batch["images"][1].abs().sum() == 0
