"""Claims about the questions about a region, and the values of its controls."""

from __future__ import annotations

from typing import Any

from job_queue.contracts import FieldAnswer, Question
from job_queue.field_answers import fill, label_question, questions_for
from label_config.reader import LabelConfig, read_label_config

HEAD = """<View><Image name="image" value="$image"/><KeyPoint name="click" toName="image" smart="true"/>
<BitmaskLabels name="mask" toName="image"><Label value="Object"/><Label value="Part"/></BitmaskLabels>"""


def config_with(*controls: str) -> LabelConfig:
    return read_label_config(HEAD + "".join(controls) + "</View>")


def control(tag: str, name: str, inside: str = "", **attributes: Any) -> str:
    given = " ".join(f'{key}="{value}"' for key, value in attributes.items())
    return f'<{tag} name="{name}" toName="image" perRegion="true" {given}>{inside}</{tag}>'


def answers(questions: tuple[Question, ...], *words: str | tuple[str, ...] | None, confidence: float = 0.9) -> Any:
    """Return one answer per question; None leaves one out."""
    return [
        FieldAnswer("region", idx, question.field, (said,) if isinstance(said, str) else said, confidence)
        for idx, (question, said) in enumerate(zip(questions, words, strict=True))
        if said is not None
    ]


CHOICES = '<Choice value="Blue" alias="b"/><Choice value="Green"/>'


def test_short_questions_come_first() -> None:
    config = config_with(control("TextArea", "detailed_description"), control("TextArea", "category"))
    assert [question.field for question in questions_for(config, "Object", part=False)] == [
        "category",
        "detailed_description",
    ]


def test_a_whole_object_is_not_asked_which_part_it_is() -> None:
    config = config_with(control("TextArea", "part"), control("TextArea", "category"))
    assert [question.field for question in questions_for(config, "Object", part=False)] == ["category"]
    on_part = {question.field: question.mask_idx for question in questions_for(config, "Part", part=True)}
    assert on_part == {"part": 0, "category": 1}


def test_a_text_says_whole_about_a_whole_object() -> None:
    config = config_with(control("TextArea", "part"))
    assert fill(config, "Object", (), (), part=False).values == {"part": ["whole"]}


def test_whole_is_chosen_where_the_choices_list_it() -> None:
    config = config_with(control("Choices", "part", '<Choice value="Whole" alias="w"/><Choice value="lid"/>'))
    assert fill(config, "Object", (), (), part=False).values == {"part": ["w"]}


def test_a_control_of_another_label_is_neither_asked_nor_filled() -> None:
    config = config_with(control("TextArea", "category"), control("TextArea", "part", whenLabelValue="Part"))
    assert {question.field for question in questions_for(config, "Object", part=True)} == {"category"}


def test_several_questions_fill_one_list() -> None:
    config = config_with(control("TextArea", "attribute"))
    questions = questions_for(config, "Object", part=False)
    assert fill(config, "Object", questions, answers(questions, "red", "wood"), part=False).values == {
        "attribute": ["red", "wood"]
    }
    same = fill(config, "Object", questions, answers(questions, "gold", " gold "), part=False)
    assert same.values == {"attribute": ["gold"]}


def test_a_box_for_one_text_gets_one_text() -> None:
    config = config_with(control("TextArea", "attribute", maxSubmissions="1"))
    questions = questions_for(config, "Object", part=False)
    filled = fill(config, "Object", questions, answers(questions, "red", "wood"), part=False)
    assert filled.values == {"attribute": ["red, wood"]}


def test_choices_are_stored_by_alias_and_single_ones_once() -> None:
    """A single choice gets the answer with the higher confidence of two."""
    config = config_with(control("Choices", "attribute", CHOICES))
    questions = questions_for(config, "Object", part=False)
    assert all(question.choices == ("Blue", "Green") for question in questions)
    color, material = answers(questions, "Green", "Blue")
    sure = FieldAnswer("region", material.question_idx, material.field, material.values, 0.99)
    filled = fill(config, "Object", questions, [color, sure], part=False)
    assert (filled.values, filled.suggestion) == ({"attribute": ["b"]}, {"attribute": ["Blue"]})


def test_multiple_choice_takes_several_listed_values() -> None:
    config = config_with(control("Choices", "attribute", CHOICES, choice="multiple"))
    questions = questions_for(config, "Object", part=False)
    filled = fill(config, "Object", questions, answers(questions, ("Blue", "Green"), ("Blue", "wood")), part=False)
    assert filled.values == {"attribute": ["b", "Green"]}


def test_taxonomy_is_stored_as_paths() -> None:
    tree = '<Choice value="Vehicle"><Choice value="Car" alias="c"/></Choice>'
    config = config_with(control("Taxonomy", "category", tree))
    questions = questions_for(config, "Object", part=False)
    assert questions[0].choices == ("Vehicle", "Car")
    filled = fill(config, "Object", questions, answers(questions, "Car"), part=False)
    assert filled.values == {"category": [["Vehicle", "c"]]}


def test_an_uncertain_answer_leaves_the_control_empty_and_is_remembered() -> None:
    config = config_with(control("TextArea", "category", osprey_threshold="0.5"))
    questions = questions_for(config, "Object", part=False)
    filled = fill(config, "Object", questions, answers(questions, "car", confidence=0.4), part=False)
    assert (filled.values, filled.late, filled.confidence) == ({}, (), {"category": 0.4})


def test_a_control_is_late_as_a_whole() -> None:
    config = config_with(control("TextArea", "attribute"), control("TextArea", "category"))
    questions = questions_for(config, "Object", part=False)
    fields = [question.field for question in questions]
    said = [None if idx == fields.index("attribute") else "word" for idx in range(len(fields))]
    filled = fill(config, "Object", questions, answers(questions, *said), part=False)
    assert (filled.values, filled.late) == ({"category": ["word"]}, ("attribute",))


def test_an_empty_answer_sends_no_item() -> None:
    config = config_with(control("TextArea", "category"))
    questions = questions_for(config, "Object", part=False)
    assert fill(config, "Object", questions, answers(questions, ("",)), part=False).values == {}


def test_labels_that_are_categories_are_asked_for_by_name() -> None:
    config = read_label_config(
        HEAD.replace("Object", "car").replace("Part", "dog") + control("TextArea", "category") + "</View>"
    )
    question = label_question(config, ("car", "dog"))
    assert question.choices == ("car", "dog")
    filled = fill(config, "car", (question,), answers((question,), "dog"), part=False)
    assert (filled.class_label, filled.values) == ("dog", {})  # the question about the label fills no control
