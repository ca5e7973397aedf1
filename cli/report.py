"""`osprey report`: what people kept of the model's words, as one HTML page and as JSON."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from worker.learning.report import ReportSource
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

    from label_config.reader import ConfigError
    from worker.errors import WorkerError
    from worker.learning.lineage import examined_versions
    from worker.learning.registry import Registry
    from worker.learning.report import source_of_export, write_report
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
    except (WorkerError, ConfigError, OSError) as error:
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
    from worker.learning.report import source_of_store
    from worker.learning.store import Store

    with Store.open(settings.database_url) as store:
        collected = source_of_store(store, project)
    return collected or _from_label_studio(settings, project)


def _from_label_studio(settings: Settings, project: int) -> ReportSource:
    """Every submitted annotation as Label Studio has it now."""
    from worker.errors import ImageUnavailable
    from worker.export.annotation_source import AnnotationSource
    from worker.export.submissions import submissions_of_tasks
    from worker.images.guarded_http import AllowedHosts, GuardedHttp
    from worker.label_studio import LabelStudio, origin_of
    from worker.learning.report import source_of_submissions

    url = settings.label_studio_url
    if not url:
        raise ImageUnavailable("set OSPREY_LABEL_STUDIO_URL and OSPREY_LABEL_STUDIO_TOKEN, or use --data")
    _, host, port = origin_of(url)
    with (
        closing(GuardedHttp(AllowedHosts(origins=[(host, port or 80)]), settings.image_timeout_s)) as http,
        AnnotationSource(url, LabelStudio(url, settings.label_studio_token, http)) as annotations,
    ):
        return source_of_submissions(submissions_of_tasks(annotations.project(project), annotations.tasks(project)))
