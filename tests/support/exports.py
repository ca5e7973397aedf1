"""Export submitted tasks and read the version back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from learning.export.version import DataVersion, Export, ExportOptions, export_version, read_export
from learning.submitted.submissions import submissions_of_tasks
from tests.support.submitted import CAR, PROJECT, WHEEL, annotation, region, task
from worker.images.resolver import ImageResolver

ALL_TRAINED = ExportOptions(held_out_share=0.0)


def export_project(
    project: Mapping[str, Any],
    tasks: Iterable[Mapping[str, Any]],
    out: Path,
    options: ExportOptions | None = None,
    images: ImageResolver | None = None,
) -> DataVersion:
    """Export the submitted annotations of Label Studio's tasks."""
    return export_version(submissions_of_tasks(project, tasks), out, options, images)


def exported(tmp_path, *tasks, project=PROJECT) -> Export:
    """Export the tasks with nothing held out and read the version back; entries are by bare file name."""
    export = read_export(export_project(project, tasks, tmp_path / "out", ALL_TRAINED).path)
    return replace(export, entries={name.removeprefix("train/"): found for name, found in export.entries.items()})


def turns(entry: dict) -> list[tuple[str, str]]:
    """Return the questions and answers of an entry."""
    values = [turn["value"] for turn in entry["conversations"]]
    assert [turn["from"] for turn in entry["conversations"]] == ["human", "gpt"] * (len(values) // 2)
    return list(zip(values[::2], values[1::2], strict=True))


def street(**more):
    """Return a task with a car, its wheel, and a hand-drawn tree without field values."""
    suggestion = {"category": ["truck"], "attribute": ["red", "metal"]}
    return task(
        11,
        annotation(
            7,
            region("car00001", CAR, suggestion=suggestion, origin="prediction-changed"),
            region("wheel001", WHEEL, label="Part", parent="car00001"),
            region("tree0001", {}, origin="manual"),
            **more,
        ),
    )
