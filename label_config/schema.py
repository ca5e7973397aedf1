"""The words in which the rest of the project speaks about a labeling config.

`label_config.reader` fills these from a project's XML; `backend` asks and answers by them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PromptKind = Literal["keypoint", "rectangle"]
OutputKind = Literal["bitmask", "polygon", "brush"]
QuestionForm = Literal["region", "part"]
FieldTag = Literal["TextArea", "Choices", "Taxonomy"]
Role = Literal["category", "part", "attribute", "short_description", "detailed_description", "custom"]


class ConfigError(ValueError):
    """The labeling config cannot be served. The message says what to add or change, with the markup to paste."""


@dataclass(frozen=True, slots=True)
class PromptControl:
    """A smart tool whose clicks or boxes reach the backend. `labels` is empty for a tool without labels."""

    name: str
    kind: PromptKind
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OutputControl:
    """The control that holds the masks. `labels` are as Label Studio stores them (alias before value)."""

    name: str
    kind: OutputKind
    labels: tuple[str, ...] = ()

    @property
    def result_type(self) -> str:
        """The `type` of a result item: `bitmasklabels` with labels, `bitmask` without."""
        return f"{self.kind}labels" if self.labels else self.kind


@dataclass(frozen=True, slots=True)
class Choice:
    """One value a closed control lists.

    `value` is what Label Studio stores (the alias where there is one), `text` what the annotator reads
    and the model may say, `path` the stored taxonomy path (`(value,)` for Choices). `text` is unique
    within a field.
    """

    value: str
    text: str
    path: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FieldQuestion:
    """What Osprey is asked about a region. `text` holds `{region}`; see `job_queue.contracts.Question` for `form`."""

    text: str
    form: QuestionForm
    max_new_tokens: int


@dataclass(frozen=True, slots=True)
class Field:
    """One per-region control that is filled.

    `choices` is empty for free text. `max_values` is None where the control sets no limit. An answer whose
    confidence is below `threshold` leaves the control empty. `when_labels` non-empty: the control is shown,
    and so filled, only on regions with one of these labels.
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
    """What a project's config lets us do.

    `image_key` is the key of the task's data that holds the image ("image" for `$image`). `notice` names a
    per-image TextArea for messages to the annotator. `notes` are sentences about controls left alone.
    `control_names` and `listed_labels` have every control and label of the config, those left alone included.
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
        """The field of that control name, or None."""
        return next((field for field in self.fields if field.name == name), None)

    def prompt(self, name: str) -> PromptControl | None:
        """The prompt of that control name, or None."""
        return next((prompt for prompt in self.prompts if prompt.name == name), None)
