"""Fields of the labeling config -> questions about a region; answers -> values of the controls. Pure functions.

A closed control gets only values that it lists, whatever a worker answers.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from job_queue.contracts import FieldAnswer, Question
from label_config.questions import DEFAULT_QUESTIONS
from label_config.reader import Field, LabelConfig

logger = logging.getLogger(__name__)

WHOLE = "whole"  # the value of the part field for a whole object; a closed control gets it only if it lists it


@dataclass(frozen=True, slots=True)
class Filled:
    """The values of a region's fields, by the name of their control.

    Attributes:
        values: what Label Studio stores in the control: texts, choices or taxonomy paths.
        suggestion: the same values as texts.
        confidence: the lowest confidence of the control's answers, also where the threshold left the control empty.
        late: the controls whose answers are not complete yet.
        class_label: the answer to `label_question`.
    """

    values: dict[str, list[Any]] = field(default_factory=dict)
    suggestion: dict[str, list[str]] = field(default_factory=dict)
    confidence: dict[str, float] = field(default_factory=dict)
    late: tuple[str, ...] = ()
    class_label: str | None = None


def without_words(filled: Filled) -> Filled:
    """Return the fields for a blind task: the controls stay empty, and the model's answers stay in `suggestion`."""
    return replace(filled, values={}, class_label=None)


def questions_for(config: LabelConfig, label: str | None, *, part: bool) -> tuple[Question, ...]:
    """Return the questions about one region, those with short answers first, so that they can be shown first.

    Args:
        config: the labeling config.
        label: the region's label, on which the visible fields depend; None: it has none.
        part: whether the region is a part of an object. The category of a part is asked about its object (mask 1);
            the part field is asked only about a part.
    """
    questions = [
        Question(
            field=asked.name,
            text=question.text,
            form=question.form,
            choices=tuple(choice.text for choice in asked.choices),
            multiple=asked.multiple and bool(asked.choices),
            mask_idx=1 if part and asked.role == "category" else 0,
            max_new_tokens=question.max_new_tokens,
        )
        for asked in config.fields
        if asked.applies_to(label) and (part or asked.role != "part")
        for question in asked.questions
    ]
    return tuple(sorted(questions, key=lambda question: question.max_new_tokens))


def label_question(config: LabelConfig, classes: tuple[str, ...]) -> Question:
    """Return the question which of `classes` the region is, for an output control whose labels are categories."""
    asked = DEFAULT_QUESTIONS["category"][0]
    return Question(config.output.name, asked.text, asked.form, classes, max_new_tokens=asked.max_new_tokens)


def fill(
    config: LabelConfig,
    label: str | None,
    questions: Sequence[Question],
    answers: Iterable[FieldAnswer],
    *,
    part: bool,
) -> Filled:
    """Return the values of each field. A field is late until all of its questions are answered.

    Args:
        config: the labeling config.
        label: the region's label, on which the visible fields depend; None: it has none.
        questions: the questions of the job, from `questions_for` and `label_question`.
        answers: the answers so far.
        part: whether the region is a part of an object.
    """
    by_idx = {answer.question_idx: answer for answer in answers}
    values, suggestion, confidence, late = {}, {}, {}, []
    for asked in config.fields:
        if not asked.applies_to(label):
            continue
        if asked.role == "part" and not part:
            listed = [choice.text for choice in asked.choices if choice.text.strip().lower() == WHOLE]
            whole = [WHOLE] if asked.tag == "TextArea" and not asked.choices else listed
            if whole:
                values[asked.name], suggestion[asked.name] = _stored(asked, whole[:1]), whole[:1]
            continue
        wanted = [idx for idx, question in enumerate(questions) if question.field == asked.name]
        if any(idx not in by_idx for idx in wanted):
            late.append(asked.name)
            continue
        replies = [by_idx[idx] for idx in wanted]
        confidence[asked.name] = round(min((reply.confidence for reply in replies), default=0.0), 4)
        texts = _texts(asked, [reply for reply in replies if reply.confidence >= asked.threshold])
        if texts:
            values[asked.name], suggestion[asked.name] = _stored(asked, texts), texts
    return Filled(values, suggestion, confidence, tuple(late), _class_label(config, questions, by_idx))


def _texts(asked: Field, replies: Sequence[FieldAnswer]) -> list[str]:
    """Return the values of one field as texts, without duplicates and at most as many as its control takes.

    A closed control gets only listed values. A text control gets surplus values joined in its last text.
    """
    if asked.choices and not asked.multiple:
        replies = sorted(replies, key=lambda reply: -reply.confidence)[:1]
    texts = list(dict.fromkeys(text for reply in replies for value in reply.values if (text := value.strip())))
    if asked.choices:
        listed = {choice.text for choice in asked.choices}
        if unlisted := [text for text in texts if text not in listed]:
            logger.error("control %r: the worker answered %s, which it does not list", asked.name, unlisted)
        texts = [text for text in texts if text in listed]
    most = asked.max_values if asked.multiple else 1
    if most is None or len(texts) <= most:
        return texts
    if asked.choices:
        return texts[:most]
    return [*texts[: most - 1], ", ".join(texts[most - 1 :])]  # in one text box: "blue, metal"


def _stored(asked: Field, texts: Sequence[str]) -> list[Any]:
    """Return the values as Label Studio stores them in this control."""
    if asked.tag == "TextArea":
        return list(texts)
    by_text = {choice.text: choice for choice in asked.choices}
    if asked.tag == "Choices":
        return [by_text[text].value for text in texts]
    return [list(by_text[text].path) for text in texts]


def _class_label(config: LabelConfig, questions: Sequence[Question], by_idx: Mapping[int, FieldAnswer]) -> str | None:
    for idx, question in enumerate(questions):
        reply = by_idx.get(idx)
        if question.field == config.output.name and reply is not None and reply.values:
            return reply.values[0] if reply.values[0] in config.output.labels else None
    return None
