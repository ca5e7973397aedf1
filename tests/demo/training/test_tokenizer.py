"""Claims about the demo's tokenizer: LLaMA's conventions, whole words of the demo world, pieces for others."""

from __future__ import annotations

import pytest

from demo.scenes.grammar import VOCABULARY
from demo.training.tokenizer import PROMPT_TEXTS, train_tokenizer, write_tokenizer
from osprey_model.inputs.tokenizer import OspreyTokenizer

ANSWERS = ["This is a red wooden house in the top left of the picture.", "It is to the left of the blue car."]


@pytest.fixture(scope="module")
def model_bytes() -> bytes:
    return train_tokenizer(ANSWERS, VOCABULARY, 1024)


@pytest.fixture(scope="module")
def tokenizer(model_bytes, tmp_path_factory) -> OspreyTokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder, model_bytes)
    return OspreyTokenizer.from_folder(folder)


def test_special_ids_are_llama_s(tokenizer):
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)
    assert (tokenizer.vocab_size, tokenizer.mask_token_id, tokenizer.pos_token_id) == (1024, 1024, 1025)


def test_every_word_of_the_demo_world_is_one_id(tokenizer):
    assert {word: len(tokenizer.encode(word, add_bos=False)) for word in VOCABULARY} == dict.fromkeys(VOCABULARY, 1)


@pytest.mark.parametrize("text", [*PROMPT_TEXTS, "rooftop", "Zwölf Äpfel, 12 €", "日本", "a\tb"])
def test_any_text_comes_back_unchanged(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_strange_word_is_spelled_in_pieces_longer_than_letters(tokenizer):
    assert len(tokenizer.encode("rooftop", add_bos=False)) <= 4


def test_the_same_texts_give_the_same_model(model_bytes):
    assert train_tokenizer(ANSWERS, VOCABULARY, 1024) == model_bytes


def test_a_vocabulary_too_small_for_the_words_is_refused():
    with pytest.raises(ValueError, match="raise vocab_size"):
        train_tokenizer(ANSWERS, VOCABULARY, 500)
