"""The questions that Osprey is asked for each role. All questions of the product are here.

The wording is that of the reference's training and evaluation prompts, so that a model fine-tuned on official data is
asked what it was trained on. Prefix, part preamble and answer suffix belong to the model
(`osprey_model/inputs/prompts.py`). Here are only the questions, with `{region}` in place of the region.
"""

from __future__ import annotations

from label_config.schema import FieldQuestion, Role

MAX_NEW_TOKENS: dict[Role, int] = {
    "category": 12,
    "part": 12,
    "attribute": 12,
    "short_description": 24,
    "detailed_description": 96,
    "custom": 24,
}

DEFAULT_QUESTIONS: dict[Role, tuple[FieldQuestion, ...]] = {
    "category": (FieldQuestion("What is the category of {region}? Using only one word or phrase.", "region", 12),),
    "part": (FieldQuestion("What part is {region}?", "part", 12),),
    # Two short questions, because the training data has no question about "the attributes".
    "attribute": (
        FieldQuestion("What is the color of {region}?", "part", 12),
        FieldQuestion("What is the material of {region}?", "part", 12),
    ),
    "short_description": (
        FieldQuestion("Please give me a short description of {region}. Using a short phrase.", "region", 24),
    ),
    "detailed_description": (FieldQuestion("Can you give me a detailed description of {region}?", "region", 96),),
    "custom": (),  # a custom field has its own question
}

_LONG_ANSWER_ROLES: frozenset[Role] = frozenset({"short_description", "detailed_description"})


def role_of(control_name: str) -> Role:
    """Return the role of a control's name, "custom" for a name that is no role. `attributes` is `attribute`."""
    name = control_name.strip().lower().replace("-", "_")
    roles: dict[str, Role] = {role: role for role in DEFAULT_QUESTIONS}
    roles["attributes"] = "attribute"
    return roles.get(name, "custom")


def own_questions(text: str, role: Role) -> tuple[FieldQuestion, ...]:
    """Read the questions of an `osprey_question` attribute; several are separated by `|`.

    Descriptions are asked in the region form. All others are asked in the part form, whose suffix asks for a single
    word or phrase.

    Raises:
        ValueError: a question does not contain `{region}` exactly once, or contains other braces or `<`, `>`.
    """
    form = "region" if role in _LONG_ANSWER_ROLES else "part"
    questions = []
    for question in (part.strip() for part in text.split("|")):
        rest = question.replace("{region}", "", 1)
        if question.count("{region}") != 1 or any(character in rest for character in "{}<>"):
            raise ValueError(
                f"expected a question that contains {{region}} exactly once and no other braces, '<' or '>', "
                f"got {question!r}; write for example: What is {{region}} made of?"
            )
        questions.append(FieldQuestion(question, form, MAX_NEW_TOKENS[role]))  # type: ignore[arg-type]
    return tuple(questions)
