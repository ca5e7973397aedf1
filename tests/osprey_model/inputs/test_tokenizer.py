"""Files that the tokenizer does not accept. Its ids are checked in `parity/test_tokenization.py`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from osprey_model.inputs.tokenizer import OspreyTokenizer


def test_a_folder_without_tokenizer(tmp_path: Path) -> None:
    """The error names both files that were expected."""
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.model or tokenizer\.json"):
        OspreyTokenizer.from_folder(tmp_path)


def test_another_kind_of_tokenizer(tmp_path: Path) -> None:
    """A WordPiece tokenizer, and a BPE without byte tokens, raise an error."""
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"type": "WordPiece"}}))
    with pytest.raises(ValueError, match="'WordPiece' tokenizer; Osprey's is BPE"):
        OspreyTokenizer.from_folder(tmp_path)
    with pytest.raises(ValueError, match="not a LLaMA vocabulary: 257 tokens are missing"):
        OspreyTokenizer({"<unk>": 0, "<s>": 1}, [])


def test_saved_json_reads_back_the_same(golden_dir: Path, tmp_path: Path) -> None:
    """A saved tokenizer.json has the same ids, also with merges in the old form of one string each."""
    original = OspreyTokenizer.from_folder(golden_dir / "tokenizer")
    original.save_json(tmp_path / "tokenizer.json")
    text = "USER: What is <mask><pos>? ASSISTANT: Zürich\n12.</s>"
    assert OspreyTokenizer.from_folder(tmp_path).encode(text) == original.encode(text)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    content["model"]["merges"] = [" ".join(merge) for merge in content["model"]["merges"]]
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    assert OspreyTokenizer.from_folder(tmp_path).encode(text) == original.encode(text)


def test_ids_behind_the_vocabulary(golden_dir: Path) -> None:
    """`<mask>` and `<pos>` have no row in the embedding table."""
    tokenizer = OspreyTokenizer.from_folder(golden_dir / "tokenizer")
    assert (tokenizer.mask_token_id, tokenizer.pos_token_id) == (tokenizer.vocab_size, tokenizer.vocab_size + 1)
    assert tokenizer.token(tokenizer.mask_token_id) == "<mask>"
    assert tokenizer.token(-200) == "<image>"
    assert tokenizer.token(tokenizer.character_id(".")) == "."
