"""Prompts and clean-up of every script of the released code, against texts that the released code wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from osprey_model.inputs.prompts import INFERENCE, PREFIX_D, PREFIX_X
from osprey_model.inputs.protocols import PROTOCOLS

GOLDEN_EVAL = Path(__file__).parents[2] / "data" / "golden" / "eval"


def golden(name: str) -> Any:
    return json.loads((GOLDEN_EVAL / f"{name}.json").read_text())


@pytest.mark.parametrize(
    ("name", "file", "question"),
    [
        ("category", "referring_classification", None),
        ("refcocog_caption", "refcocog_caption", None),
        ("open_vocabulary", "open_vocab_segmentation", None),
        ("pope", "pope", "Is there a thing0 in the image?"),
    ],
)
def test_prompts(name: str, file: str, question: str | None) -> None:
    """Prompts equal the released code's in every character, also the line with a dot."""
    assert INFERENCE.prompt([(PROTOCOLS[name].message(question), None)]) == golden(file)["prompt"]


def test_prompts_without_a_golden_file() -> None:
    """The demo's prefix has two newlines; questions from a file name `<region>`."""
    assert PROTOCOLS["demo_short"].message() == (
        PREFIX_D + "Please give me a short description of <mask><pos>. Using a short phrase."
    )
    assert PROTOCOLS["demo_detailed"].message() == (PREFIX_D + "Can you give me a detailed description of <mask><pos>?")
    for name in ("gpt_description", "ferret"):
        assert PROTOCOLS[name].message("What is <region>?") == PREFIX_X + "What is <mask><pos>?"
        with pytest.raises(ValueError, match="expected the data's question"):
            PROTOCOLS[name].message()
    with pytest.raises(ValueError, match="expected none, it is always 'What is in"):
        PROTOCOLS["open_vocabulary"].message("What is this?")


def test_categories_as_the_metric_gets_them() -> None:
    """LVIS and PACO categories are cleaned as in the released code, with the colon rule."""
    for row in golden("referring_classification")["rows"]:
        assert PROTOCOLS["category"].clean(row["raw_prediction"], colon_rule=True) == row["processed_prediction"]


def test_captions_as_they_are_written() -> None:
    """RefCOCOg captions are cleaned as in the released code, with the colon rule."""
    facts = golden("refcocog_caption")
    written = [row["caption"] for row in facts["captions_out"]]
    cleaned = [PROTOCOLS["refcocog_caption"].clean(text, colon_rule=True) for text in facts["predictions"]]
    assert cleaned == written


def test_pope_is_lower_case() -> None:
    """A POPE answer is converted to lower case and not changed otherwise."""
    facts = golden("pope")
    answers = [line["answer"] for line in facts["answer_file_lines"]]
    assert [PROTOCOLS["pope"].clean(text) for text in facts["raw_answers"]] == answers


@pytest.mark.parametrize(
    ("name", "plain", "with_rule"),
    [
        ("gpt_description", "It is 10:30: late.", "30"),
        ("ferret", "It is 10:30: late.", "It is 10:30: late."),
        ("open_vocabulary", "It is 10:30: late.", "It is 10:30: late."),
        ("category", "It is 10 30  late ", "30"),
        ("demo_short", "It is 10:30: late.", "30."),
    ],
)
def test_colons_stay_unless_the_old_rule_is_asked_for(name: str, plain: str, with_rule: str) -> None:
    """The colon rule is off by default; Ferret-bench and open vocabulary never apply it."""
    assert PROTOCOLS[name].clean(" It is 10:30: late.</s>") == plain
    assert PROTOCOLS[name].clean(" It is 10:30: late.</s>", colon_rule=True) == with_rule
