"""The literal prompts, and the clean-up of answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from osprey_model.inputs import prompts

GOLDEN_EVAL = Path(__file__).parents[2] / "data" / "golden" / "eval"


def test_the_part_form_is_the_trained_sentence() -> None:
    """The part form has the training data's spelling, for one region and for several."""
    assert prompts.question_message("What is the color of {region}?", "part") == (
        "Ther are 1 part region in the picture: region1<mask><pos>. What is the color of region1? "
        "Answer the question using a single word or phrase."
    )
    assert prompts.part_question("Is region2 beside {region}?", 2) == (
        "Ther are 2 part regions in the picture: region1<mask><pos>,region2<mask><pos>. "
        "Is region2 beside region1? Answer the question using a single word or phrase."
    )
    assert prompts.part_preamble(2) == (
        "Ther are 2 part regions in the picture: region1<mask><pos>,region2<mask><pos>. "
    )


def test_the_image_comes_first() -> None:
    """The image-token rule turns prefix X into a line with a dot, and does not change prefix P."""
    assert prompts.image_first("<image>.\nThis provides an overview of the picture.\n") == prompts.PREFIX_X.rstrip()
    assert prompts.image_first("What is this?\n<image>") == "<image>\nWhat is this?"
    assert prompts.image_first("What is this?") == "What is this?"


def test_the_released_demo_clean_up_behind_its_option() -> None:
    """With the colon rule, every row of the golden table is reproduced."""
    rows = json.loads((GOLDEN_EVAL / "demo_postprocess.json").read_text())["rows"]
    assert len(rows) > 10
    for row in rows:
        assert prompts.clean_description(row["decoded"], colon_rule=True) == row["shown"]


@pytest.mark.parametrize(
    ("decoded", "shown"),
    [
        ("time is 10:30 now. ok.", "time is 10:30 now. ok."),
        ("a: b: c", "a: b: c."),
        ("A dog. A dog. Sleeps.", "A dog."),
        ("One. Two. One. Three.", "One. Two."),
        ("Ends with</s>", "Ends with."),
        ("", ""),
    ],
)
def test_by_default_colons_stay_and_repeats_end_the_text(decoded: str, shown: str) -> None:
    """By default, text with colons is kept, and repeats are cut that the released rule misses."""
    assert prompts.clean_description(decoded) == shown


def test_the_other_paths() -> None:
    """LVIS and PACO categories and RefCOCOg captions are cleaned, with and without the colon rule."""
    assert prompts.clean_category(" traffic light, red. ") == "traffic light  red "
    assert prompts.clean_category("Answer: dog.", colon_rule=True) == " dog "
    assert prompts.clean_caption("a dog. a cat.") == "a dog.\n a cat.\n"
    assert prompts.clean_caption("Answer: a dog.", colon_rule=True) == " a dog.\n"
