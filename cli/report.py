"""`osprey report`: what people kept of the model's words, as one HTML page and as JSON."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from learning.report.report import ReportSource
    from worker.settings import Settings


def report(
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("report.html"),
    project: Annotated[int | None, typer.Option(help="The project's number, as in its address.")] = None,
    data: Annotated[Path | None, typer.Option(help="An export version instead of Label Studio.")] = None,
    figures: Annotated[Path | None, typer.Option("--json", help="The same figures as JSON, into this file.")] = None,
) -> None:
    """Write the report of a project: corrections, edits, versions, calibration, confusions, the worst mistakes."""
    from datetime import UTC, datetime

    from rich.console import Console
    from rich.markup import escape

    from job_queue.errors import OspreyError
    from label_config.reader import ConfigError
    from learning.report.report import source_of_export, write_report
    from learning.report.version_history import examined_versions
    from registry.versions import Registry
    from worker.settings import Settings

    console, errors = Console(), Console(stderr=True)
    if (project is None) == (data is None):
        raise typer.BadParameter("name a project (--project 1) or an export version (--data FOLDER), one of the two")
    settings = Settings.from_env(os.environ)
    try:
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
    except (OspreyError, ConfigError, OSError) as error:
        errors.print(f"[red]No report:[/red] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(1) from error
    for each in found.rounds:
        console.print(
            escape(
                f"{each.model_version}: {each.corrections_per_100:.1f} corrections per 100 of {each.regions} regions"
            ),
            soft_wrap=True,
        )
    console.print(escape(str(out)), soft_wrap=True)


def _of_project(settings: Settings, project: int) -> ReportSource:
    """What was collected; where nothing was, what Label Studio has now (it does not know which regions were blind)."""
    from learning.corrections.store import Store
    from learning.report.report import source_of_store

    with Store.open(settings.database_url) as store:
        collected = source_of_store(store, project)
    return collected or _from_label_studio(settings, project)


def _from_label_studio(settings: Settings, project: int) -> ReportSource:
    """Every submitted annotation as Label Studio has it now."""
    from job_queue.errors import LabelStudioFailed
    from learning.report.report import source_of_submissions
    from learning.submitted.submissions import submissions_of_tasks
    from worker.label_studio.annotations import annotation_source

    if not settings.label_studio_url:
        raise LabelStudioFailed("set OSPREY_LABEL_STUDIO_URL and OSPREY_LABEL_STUDIO_TOKEN, or use --data")
    with annotation_source(settings) as annotations:
        return source_of_submissions(submissions_of_tasks(annotations.project(project), annotations.tasks(project)))
