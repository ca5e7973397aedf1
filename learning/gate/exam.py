"""An export version -> what a model is asked about its regions and what people say is right.

Neighbours: `learning/export/version.py` (the folder), `learning/gate/evaluate.py` (asks a model).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from job_queue.contracts import Question, Rle
from job_queue.errors import OspreyError
from job_queue.field_answers import questions_for
from label_config.reader import LabelConfig, read_label_config
from learning.export.image_folder import FOLDER
from learning.export.splits import Side
from learning.export.version import read_export
from learning.submitted.regions import SubmittedRegion


class ExamUnusable(OspreyError):
    """An export version that nobody can be examined with; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class ExamField:
    """A field of a region: its questions, and what a person kept in it."""

    name: str
    role: str
    questions: tuple[Question, ...]
    expected: tuple[str, ...]
    choices: tuple[str, ...]
    multiple: bool


@dataclass(frozen=True, slots=True)
class ExamRegion:
    """One region: its label, its own mask, for a part also its object's, and its fields."""

    task: int
    annotation: int
    region: str
    label: str | None
    masks: tuple[Rle, ...]
    fields: tuple[ExamField, ...]


@dataclass(frozen=True, slots=True)
class ExamImage:
    """One image file with the regions that are asked about."""

    path: Path
    regions: tuple[ExamRegion, ...]


@dataclass(frozen=True, slots=True)
class Exam:
    """All images of one side of a version. `name` is the version's."""

    name: str
    images: tuple[ExamImage, ...]

    @property
    def num_regions(self) -> int:
        """Over all images."""
        return sum(len(image.regions) for image in self.images)


def read_exam(folder: Path, side: Side | None = "held_out", *, may_be_empty: bool = False) -> Exam:
    """The exam that an export version holds.

    Args:
        folder: a version of the layout osprey-724k with its images.
        side: of the split; None: all images (a base set is held out as a whole).
        may_be_empty: of few images all may be on the other side.

    Raises:
        ExamUnusable: it has no region or no image on that side.
        ExportRefused: it is not a complete version.
    """
    export = read_export(folder)
    config = read_label_config(export.label_config)
    names = sorted(name for name in export.images if side is None or export.sides[name] == side)
    images = []
    for name in names:
        path = folder / FOLDER / name
        regions = tuple(_regions(config, [region for region in export.regions if region.image == name]))
        if regions and not path.is_file():
            raise ExamUnusable(f"{folder} was exported without its images ({name} is missing); export it with them")
        if regions:
            images.append(ExamImage(path, regions))
    if not images and not may_be_empty:
        raise ExamUnusable(f"{folder} has no region on the side {side or 'any'!r}; collect more, or export again")
    return Exam(folder.resolve().name, tuple(images))


def read_base_exam(folder: Path) -> Exam:
    """All images of the frozen base set.

    Raises:
        ExamUnusable: what OSPREY_BASE_SET names is no complete export version with images.
    """
    try:
        return read_exam(folder, None)
    except OspreyError as error:
        raise ExamUnusable(
            f"the base set cannot be used: {error}. OSPREY_BASE_SET names an export version with its images, made by "
            "`osprey export`; without one nothing passes the gate"
        ) from error


def _regions(config: LabelConfig, regions: Sequence[SubmittedRegion]) -> Iterator[ExamRegion]:
    by_id = {(region.annotation, region.region): region for region in regions}
    for region in regions:
        parent = by_id.get((region.annotation, region.parent or ""))
        masks = (region.mask,) if parent is None else (region.mask, parent.mask)
        fields = tuple(_fields(config, region, has_object=parent is not None))
        if fields:
            yield ExamRegion(region.task, region.annotation, region.region, region.label, masks, fields)


def _fields(config: LabelConfig, region: SubmittedRegion, *, has_object: bool) -> Iterator[ExamField]:
    asked = questions_for(config, region.label, part=region.is_part)  # as a click asks
    for field in config.fields:
        expected = tuple(region.texts.get(field.name, ()))
        questions = tuple(question for question in asked if question.field == field.name)
        # A part's category is asked of its object, which may not have been submitted.
        if expected and questions and (has_object or all(question.mask_idx == 0 for question in questions)):
            choices = tuple(choice.text for choice in field.choices)
            yield ExamField(field.name, field.role, questions, expected, choices, field.multiple)
