"""Exports of submitted tasks, read back."""

from __future__ import annotations

from dataclasses import replace

from learning.export.version import Export, ExportOptions, export_project, read_export
from tests.support.submitted import CAR, PROJECT, WHEEL, annotation, region, task

ALL_TRAINED = ExportOptions(held_out_share=0.0)


def exported(tmp_path, *tasks, project=PROJECT) -> Export:
    """The tasks exported with nothing held out, and read back; entries by bare file name."""
    export = read_export(export_project(project, tasks, tmp_path / "out", ALL_TRAINED).path)
    return replace(export, entries={name.removeprefix("train/"): found for name, found in export.entries.items()})


def turns(entry: dict) -> list[tuple[str, str]]:
    """Questions and answers of an entry."""
    values = [turn["value"] for turn in entry["conversations"]]
    assert [turn["from"] for turn in entry["conversations"]] == ["human", "gpt"] * (len(values) // 2)
    return list(zip(values[::2], values[1::2], strict=True))


def street(**more):
    """A task with a car, its wheel, and a hand-drawn tree without texts."""
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
