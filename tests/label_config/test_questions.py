"""Claims about the product questions."""

from __future__ import annotations

import pytest

from label_config.questions import DEFAULT_QUESTIONS, MAX_NEW_TOKENS, own_questions


@pytest.mark.parametrize("role", [role for role in DEFAULT_QUESTIONS if role != "custom"])
def test_default_questions(role):
    """Every role names its region exactly once and has the length limit of its role."""
    questions = DEFAULT_QUESTIONS[role]
    assert questions
    for question in questions:
        assert question.text.count("{region}") == 1
        assert question.max_new_tokens == MAX_NEW_TOKENS[role]


def test_reference_wording():
    """Category and descriptions are asked in the reference's exact words; a changed letter is another prompt."""
    assert [DEFAULT_QUESTIONS[role][0].text for role in ("category", "short_description", "detailed_description")] == [
        "What is the category of {region}? Using only one word or phrase.",
        "Please give me a short description of {region}. Using a short phrase.",
        "Can you give me a detailed description of {region}?",
    ]


def test_own_description_keeps_the_region_form():
    """An own question for a description is asked in the region form, so that its answer is not one word."""
    (question,) = own_questions("Describe {region} at length.", "detailed_description")
    assert (question.form, question.max_new_tokens) == ("region", 96)
    assert own_questions("What is {region}?", "category")[0].form == "part"
