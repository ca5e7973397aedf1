"""The dataclasses that describe a labeling config; `label_config.reader` makes them from a project's XML."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PromptKind = Literal["keypoint", "rectangle"]
OutputKind = Literal["bitmask", "polygon", "brush"]
QuestionForm = Literal["region", "part"]
FieldTag = Literal["TextArea", "Choices", "Taxonomy"]
Role = Literal["category", "part", "attribute", "short_description", "detailed_description", "custom"]


class ConfigError(ValueError):
    """The labeling config cannot be served. The message contains the markup to add or change."""


@dataclass(frozen=True, slots=True)
class PromptControl:
    """A smart tool whose clicks or boxes reach the backend. `labels` is empty for a tool without labels."""

    name: str
    kind: PromptKind
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OutputControl:
    """The control for the masks. `labels` are as Label Studio stores them (alias before value)."""

    name: str
    kind: OutputKind
    labels: tuple[str, ...] = ()

    @property
    def result_type(self) -> str:
        """The `type` of a result item: `bitmasklabels` with labels, `bitmask` without."""
        return f"{self.kind}labels" if self.labels else self.kind


@dataclass(frozen=True, slots=True)
class Choice:
    """One value that a closed control lists.

    Attributes:
        value: as Label Studio stores it (the alias if there is one).
        text: as the annotator reads it and the model may answer it; unique within a field.
        path: the stored taxonomy path, `(value,)` for Choices.
    """

    value: str
    text: str
    path: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FieldQuestion:
    """A question about a region. `text` contains `{region}`; see `job_queue.contracts.Question` for `form`."""

    text: str
    form: QuestionForm
    max_new_tokens: int


@dataclass(frozen=True, slots=True)
class Field:
    """One per-region control that is filled.

    `choices` is empty for free text. `max_values` is None if the control has no limit. An answer whose confidence is
    below `threshold` leaves the control empty. With `when_labels`, the control is shown, and therefore filled, only on
    regions with one of these labels.
    """

    name: str
    tag: FieldTag
    role: Role
    questions: tuple[FieldQuestion, ...]
    choices: tuple[Choice, ...] = ()
    multiple: bool = False
    max_values: int | None = None
    threshold: float = 0.0
    when_labels: tuple[str, ...] = ()

    @property
    def result_type(self) -> str:
        """The `type` of a result item for this control, also the key of its value for the closed ones."""
        return self.tag.lower()

    def applies_to(self, label: str | None) -> bool:
        """Whether a region with this label shows the control."""
        return not self.when_labels or label in self.when_labels


@dataclass(frozen=True, slots=True)
class LabelConfig:
    """A project's labeling config as far as it is served.

    Attributes:
        image_name: the Image tag's name.
        image_key: the key of the task's data that holds the image ("image" for `$image`).
        prompts: the smart tools.
        output: the control for the masks.
        fields: the controls that are filled.
        notice: the name of a per-image TextArea for messages to the annotator.
        notes: reasons why other controls are left alone.
        control_names: every control of the config, also those left alone.
        listed_labels: every label of the config, also those of controls left alone.
    """

    image_name: str
    image_key: str
    prompts: tuple[PromptControl, ...]
    output: OutputControl
    fields: tuple[Field, ...]
    notice: str | None = None
    notes: tuple[str, ...] = ()
    control_names: frozenset[str] = frozenset()
    listed_labels: frozenset[str] = frozenset()

    def field(self, name: str) -> Field | None:
        """Return the field of that control name, or None."""
        return next((field for field in self.fields if field.name == name), None)

    def prompt(self, name: str) -> PromptControl | None:
        """Return the prompt of that control name, or None."""
        return next((prompt for prompt in self.prompts if prompt.name == name), None)
