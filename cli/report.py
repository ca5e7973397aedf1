"""`osprey report`: show how many of the model's answers annotators kept, as one HTML page and as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.screen import failures, read_settings

if TYPE_CHECKING:
    from learning.report.report import ReportSource
    from learning.settings import Settings


def report(
    out: Annotated[Path, typer.Option(help="HTML file to write.")] = Path("report.html"),
    project: Annotated[
        int | None, typer.Option(help="Number of the project, as in its address in Label Studio.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of an export version to report on instead.")] = None,
    figures: Annotated[Path | None, typer.Option("--json", help="JSON file for the same figures.")] = None,
) -> None:
    """Write a report of a project: corrections, edits, model versions, calibration, confusions, worst mistakes."""
    from datetime import UTC, datetime

    from rich.console import Console
    from rich.markup import escape

    from learning.report.report import source_of_export, write_report
    from learning.report.version_history import examined_versions
    from learning.settings import Settings
    from registry.versions import Registry

    console = Console()
    if (project is None) == (data is None):
        raise typer.BadParameter("name a project (--project 1) or an export version (--data FOLDER), one of the two")
    settings = read_settings(Settings)
    with failures("No report"):
        source = source_of_export(data) if data is not None else _of_project(settings, project or 0)
        task_url = None
        if settings.label_studio_url and project is not None:
            task_url = f"{settings.label_studio_url.rstrip('/')}/projects/{project}/data?task={{task}}"
        versions = () if settings.registry is None else examined_versions(Registry(settings.registry))
        found = write_report(
            source,
            settings,
            out,
            figures_file=figures,
            made_at=datetime.now(UTC),
            task_url=task_url,
            versions=versions,
        )
    for each in found.rounds:
        console.print(
            escape(
                f"{each.model_version}: {each.corrections_per_100:.1f} corrections per 100 of {each.regions} regions"
            ),
            soft_wrap=True,
        )
    console.print(escape(str(out)), soft_wrap=True)


def _of_project(settings: Settings, project: int) -> ReportSource:
    """Read what was collected; where nothing was, what Label Studio has now, which does not know the blind tasks."""
    from learning.corrections.store import Store
    from learning.report.report import source_of_store

    with Store.open(settings.database_url) as store:
        collected = source_of_store(store, project)
    return collected or _from_label_studio(settings, project)


def _from_label_studio(settings: Settings, project: int) -> ReportSource:
    """Read every submitted annotation that Label Studio has now."""
    from job_queue.errors import LabelStudioFailed
    from learning.report.report import source_of_submissions
    from learning.submitted.submissions import submissions_of_tasks
    from worker.label_studio.annotations import annotation_source

    if not settings.label_studio_url:
        raise LabelStudioFailed("set OSPREY_LABEL_STUDIO_URL and OSPREY_LABEL_STUDIO_TOKEN, or use --data")
    with annotation_source(settings) as annotations:
        return source_of_submissions(submissions_of_tasks(annotations.project(project), annotations.tasks(project)))
