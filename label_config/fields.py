"""A per-region control -> its field: role, questions, choices, limits."""

from __future__ import annotations

from collections import Counter
from xml.etree.ElementTree import Element

from label_config.controls import Control
from label_config.questions import DEFAULT_QUESTIONS, own_questions, role_of
from label_config.schema import Choice, ConfigError, Field, FieldQuestion, FieldTag, Role

FIELD_TAGS: dict[str, FieldTag] = {"textarea": "TextArea", "choices": "Choices", "taxonomy": "Taxonomy"}


def read_field(control: Control) -> Field | str:
    """Read the field of a per-region control, or return a sentence with the reason why it is left alone.

    Raises:
        ConfigError: an `osprey_*` attribute or a list of choices is invalid.
    """
    role = _role(control)
    question_text = control.get("osprey_question")
    if role == "custom" and not question_text:
        return (
            f"{control.markup()} is left alone: its name is no role and it has no question; "
            f'add osprey_question="What is {{region}} made of?" to have it filled'
        )
    tag = FIELD_TAGS[control.kind]
    choices: tuple[Choice, ...] = ()
    if tag != "TextArea":
        if control.get("value").startswith("$") or control.get("apiurl"):
            return f"{control.markup()} is left alone: its choices come from outside the config and cannot be checked"
        if control.is_true("allownested"):
            return f"{control.markup()} is left alone: nested Choices are not served; use <Taxonomy> for a tree"
        choices = _read_choices(control, tag)
    multiple, max_values = _how_many(control, tag)
    return Field(
        name=control.name,
        tag=tag,
        role=role,
        questions=_questions(control, question_text, role),
        choices=choices,
        multiple=multiple,
        max_values=max_values,
        threshold=_threshold(control),
        when_labels=control.condition("whenLabelValue"),
    )


def _role(control: Control) -> Role:
    stated = control.get("osprey_role")
    if not stated:
        return role_of(control.name)
    role = role_of(stated)
    if role == "custom" and stated.lower() != "custom":
        raise ConfigError(
            f'{control.markup()} has osprey_role="{stated}"; expected one of {", ".join(DEFAULT_QUESTIONS)}'
        )
    return role


def _questions(control: Control, text: str, role: Role) -> tuple[FieldQuestion, ...]:
    if not text:
        return DEFAULT_QUESTIONS[role]
    try:
        return own_questions(text, role)
    except ValueError as error:
        raise ConfigError(f"{control.markup()}: osprey_question: {error}") from error


def _threshold(control: Control) -> float:
    text = control.get("osprey_threshold")
    if not text:
        return 0.0
    try:
        threshold = float(text)
    except ValueError:
        threshold = -1.0
    if not 0.0 <= threshold <= 1.0:
        raise ConfigError(
            f'{control.markup()} has osprey_threshold="{text}"; expected a probability from 0 to 1, such as 0.6'
        )
    return threshold


def _how_many(control: Control, tag: FieldTag) -> tuple[bool, int | None]:
    """Return whether the control can have several values, and how many at most."""
    limit_name = "maxSubmissions" if tag == "TextArea" else "maxUsages"
    text = control.get(limit_name)
    limit = int(text) if text.isdigit() and int(text) > 0 else None
    if tag == "Choices" and control.get("choice", "single").lower() != "multiple":
        return False, 1
    return limit != 1, limit


def _read_choices(control: Control, tag: FieldTag) -> tuple[Choice, ...]:
    """Read the listed values in document order, with texts that are unique within the control.

    Raises:
        ConfigError: there is no choice, a choice has no text, or a choice is listed twice.
    """
    leaves_only = tag == "Taxonomy" and control.is_true("leafsOnly")
    listed: list[tuple[tuple[str, ...], tuple[str, ...]]] = []  # stored path, shown path
    _collect(control, control.element, (), (), leaves_only, listed)
    if not listed:
        raise ConfigError(
            f'{control.markup()} lists no choice; add for example <Choice value="car"/> inside it, '
            'or osprey="off" to leave the control alone'
        )
    if tag == "Choices" and any(len(stored) > 1 for stored, _ in listed):
        raise ConfigError(f"{control.markup()} nests <Choice> tags; use <Taxonomy> for a tree")
    doubled = [path for path, count in Counter(stored for stored, _ in listed).items() if count > 1]
    if doubled:
        raise ConfigError(f'{control.markup()} lists "{" > ".join(doubled[0])}" twice; keep one')
    # "door" below "car" and below "house" are two choices. The model then answers "car door".
    leaf_counts = Counter(shown[-1] for _, shown in listed)
    choices = tuple(
        Choice(stored[-1], shown[-1] if leaf_counts[shown[-1]] == 1 else " ".join(shown), stored)
        for stored, shown in listed
    )
    texts = Counter(choice.text for choice in choices)
    if max(texts.values()) > 1:
        text = texts.most_common(1)[0][0]
        raise ConfigError(f'{control.markup()} shows "{text}" for two different choices; give them different values')
    return choices


def _collect(
    control: Control,
    parent: Element,
    stored: tuple[str, ...],
    shown: tuple[str, ...],
    leaves_only: bool,
    listed: list[tuple[tuple[str, ...], tuple[str, ...]]],
) -> None:
    """Append the (stored, shown) paths of the choices below `parent` to `listed`."""
    for element in parent:
        if element.tag.lower() != "choice":
            _collect(control, element, stored, shown, leaves_only, listed)  # a View only groups choices
            continue
        text = (element.get("value") or "").strip()
        if not text:
            raise ConfigError(f'{control.markup()} holds a <Choice> without a value; write <Choice value="car"/>')
        stored_path = (*stored, (element.get("alias") or "").strip() or text)
        shown_path = (*shown, text)
        has_children = any(child.tag.lower() == "choice" for child in element.iter() if child is not element)
        if not (leaves_only and has_children):
            listed.append((stored_path, shown_path))
        _collect(control, element, stored_path, shown_path, leaves_only, listed)
