"""The config's fields -> questions about a region; the answers -> what each control is given. Pure.

Closed controls get listed values and nothing else, whatever a worker answers.
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

WHOLE = "whole"  # what the part control says about a whole object: a text always, choices where they list it


@dataclass(frozen=True, slots=True)
class Filled:
    """What was answered about a region.

    `values` holds, by control name, exactly what the control is sent: texts, stored choices or stored taxonomy
    paths. `suggestion` holds the same as words, `confidence` the least confidence of the control's answers, also
    of those that the threshold left empty. `late` names the controls that are still to come. `class_label` is
    the answer of `label_question`.
    """

    values: dict[str, list[Any]] = field(default_factory=dict)
    suggestion: dict[str, list[str]] = field(default_factory=dict)
    confidence: dict[str, float] = field(default_factory=dict)
    late: tuple[str, ...] = ()
    class_label: str | None = None


def without_words(filled: Filled) -> Filled:
    """For a blind task: nothing is put into a control; what the model would have said stays in `suggestion`."""
    return replace(filled, values={}, class_label=None)


def questions_for(config: LabelConfig, label: str | None, *, part: bool) -> tuple[Question, ...]:
    """The questions about one region, the short ones first: what is answered first can be shown first.

    On a part (whose object's mask travels as mask 1) the category is asked of the object; a whole object is
    not asked which part it is.
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
    """Asks which of the output control's labels the region has, where these are categories."""
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
    """What each control is given. A control whose questions are not all answered yet is late as a whole."""
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
    """The words that go into the control: listed ones where it is closed, no doubles, no more than it holds."""
    if asked.choices and not asked.multiple:
        replies = sorted(replies, key=lambda reply: -reply.confidence)[:1]
    words = list(dict.fromkeys(word for reply in replies for value in reply.values if (word := value.strip())))
    if asked.choices:
        listed = {choice.text for choice in asked.choices}
        if unlisted := [word for word in words if word not in listed]:
            logger.error("control %r: the worker answered %s, which it does not list", asked.name, unlisted)
        words = [word for word in words if word in listed]
    most = asked.max_values if asked.multiple else 1
    if most is None or len(words) <= most:
        return words
    if asked.choices:
        return words[:most]
    return [*words[: most - 1], ", ".join(words[most - 1 :])]  # one text box: "blue, metal"


def _stored(asked: Field, texts: Sequence[str]) -> list[Any]:
    """The words as Label Studio stores them in this control."""
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
