"""Ids and labels against the reference's tokenizer and its training code."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from osprey_model.data.conversation import encode_caption, encode_conversation, turns_of
from osprey_model.inputs.prompts import INFERENCE, TRAINING, image_first
from osprey_model.inputs.tokenizer import OspreyTokenizer


@pytest.fixture(scope="module")
def expected(golden_dir: Path) -> dict[str, Any]:
    return json.loads((golden_dir / "tokenizer" / "tokenization.json").read_text())


@pytest.fixture(scope="module", params=["tokenizer.model", "tokenizer.json"])
def tokenizer(
    request: pytest.FixtureRequest, golden_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> OspreyTokenizer:
    """The tokenizer, built from each of the two files alone."""
    folder = tmp_path_factory.mktemp("tokenizer")
    source = {"tokenizer.model": "tokenizer.model", "tokenizer.json": "reference_fast_tokenizer.json"}[request.param]
    shutil.copy(golden_dir / "tokenizer" / source, folder / request.param)
    return OspreyTokenizer.from_folder(folder)


def test_plain_text(tokenizer: OspreyTokenizer, expected: dict[str, Any]) -> None:
    """Placeholders between spaces, byte fallback and special tokens have the reference's ids, and decode to text."""
    for row in expected["plain_text"]:
        assert tokenizer.encode(row["text"]) == row["input_ids"], row["text"]
        assert tokenizer.decode(row["input_ids"]) == row["decoded"]


def test_prompts(tokenizer: OspreyTokenizer, expected: dict[str, Any]) -> None:
    """Every inference prompt has the reference's ids, image and region ids included."""
    assert expected["mask_token_id"] == tokenizer.mask_token_id
    for row in expected["inference"]:
        assert tokenizer.encode_prompt(row["prompt"]) == row["input_ids"], row["name"]


def test_templates(expected: dict[str, Any]) -> None:
    """System prompts and separators equal the reference's."""
    for name, template in (("inference", INFERENCE), ("training", TRAINING)):
        reference = expected["templates"][name]
        assert template.system == reference["system"]
        assert (template.user, template.assistant) == tuple(reference["roles"])
        assert template.end_of_answer == reference["sep2"]


def test_training_ids_and_labels(tokenizer: OspreyTokenizer, expected: dict[str, Any]) -> None:
    """Prompt, ids and labels of conversations equal those of the training code, also with stage 1's plain template."""
    assert expected["training"]
    for row in expected["training"]:
        turns = turns_of(row["conversation"])
        if row.get("template") == "plain":
            encoded = encode_caption(tokenizer, turns[0][1])
        else:
            encoded = encode_conversation(tokenizer, turns)
            assert TRAINING.prompt([(image_first(message), answer) for message, answer in turns]) == row["prompt"]
        assert encoded.input_ids == row["input_ids"], row["name"]
        assert encoded.labels == row["labels"], row["name"]
