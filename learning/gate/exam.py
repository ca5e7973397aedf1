"""Read an export version as an evaluation set: questions about its regions, and the submitted values."""

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
    """The export version cannot be used as an evaluation set. The message says what is missing."""


@dataclass(frozen=True, slots=True)
class ExamField:
    """A field of a region: its questions, and the submitted value (`expected`)."""

    name: str
    role: str
    questions: tuple[Question, ...]
    expected: tuple[str, ...]
    choices: tuple[str, ...]
    multiple: bool


@dataclass(frozen=True, slots=True)
class ExamRegion:
    """One region with its fields. `masks`: its own, and for a part also the mask of its object."""

    task: int
    annotation: int
    region: str
    label: str | None
    masks: tuple[Rle, ...]
    fields: tuple[ExamField, ...]


@dataclass(frozen=True, slots=True)
class ExamImage:
    """One image file with its regions."""

    path: Path
    regions: tuple[ExamRegion, ...]


@dataclass(frozen=True, slots=True)
class Exam:
    """All images of one side of an export version. `name` is that of the version."""

    name: str
    images: tuple[ExamImage, ...]

    @property
    def num_regions(self) -> int:
        """Number of regions over all images."""
        return sum(len(image.regions) for image in self.images)


def read_exam(folder: Path, side: Side | None = "held_out", *, may_be_empty: bool = False) -> Exam:
    """Read the evaluation set of an export version.

    Args:
        folder: a version of the layout osprey-724k with its images.
        side: of the split; None: all images (a base set is held out as a whole).
        may_be_empty: return an empty exam instead of an error if no image is on that side.

    Raises:
        ExamUnusable: the version has no region on that side, or an image is missing.
        ExportRefused: the folder is not a complete version.
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
    """Read all images of the frozen base set.

    Raises:
        ExamUnusable: OSPREY_BASE_SET does not name a complete export version with images.
    """
    try:
        return read_exam(folder, None)
    except OspreyError as error:
        raise ExamUnusable(
            f"the base set cannot be used: {error}. OSPREY_BASE_SET names an export version with its images, made by "
            "`osprey export`; without one no version passes the gate"
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
        # A part's category is asked with its object's mask, and the object may not have been submitted.
        if expected and questions and (has_object or all(question.mask_idx == 0 for question in questions)):
            choices = tuple(choice.text for choice in field.choices)
            yield ExamField(field.name, field.role, questions, expected, choices, field.multiple)
