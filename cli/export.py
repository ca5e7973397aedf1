"""`osprey export`: submitted annotations of a Label Studio project as Osprey-724K files."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table


def export(
    project: Annotated[int, typer.Option(help="The project's number, as in its address.")],
    out: Annotated[Path, typer.Option(help="A new or empty folder, or an earlier export, which is replaced.")],
) -> None:
    """Write a project's submitted annotations as training data in the Osprey-724K layout.

    Label Studio's address and token come from OSPREY_LABEL_STUDIO_URL and OSPREY_LABEL_STUDIO_TOKEN.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from label_config.reader import ConfigError
    from worker.errors import WorkerError
    from worker.export.annotation_source import AnnotationSource
    from worker.export.version import export_project
    from worker.guarded_http import AllowedHosts, GuardedHttp
    from worker.label_studio import LabelStudio, origin_of
    from worker.settings import Settings

    console, errors = Console(), Console(stderr=True)
    settings = Settings.from_env(os.environ)
    if not settings.label_studio_url:
        errors.print("[red]Set OSPREY_LABEL_STUDIO_URL[/red] to Label Studio's address and OSPREY_LABEL_STUDIO_TOKEN")
        raise typer.Exit(2)
    _, host, port = origin_of(settings.label_studio_url)
    columns = (SpinnerColumn(), TextColumn("{task.completed} tasks read"), TimeElapsedColumn())
    try:
        with (
            closing(GuardedHttp(AllowedHosts(origins=[(host, port or 80)]), settings.image_timeout_s)) as http,
            AnnotationSource(
                settings.label_studio_url, LabelStudio(settings.label_studio_url, settings.label_studio_token, http)
            ) as source,
            Progress(*columns, console=errors, transient=True) as progress,
        ):
            bar = progress.add_task("tasks", total=None)
            manifest = export_project(
                source.project(project), source.tasks(project), out, on_task=lambda: progress.advance(bar)
            )
    except (WorkerError, ConfigError, OSError) as error:
        errors.print(f"[red]Not exported:[/red] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(1) from error
    console.print(_table(manifest))
    problems = manifest["counts"]["problems"]
    if problems:
        console.print(
            f"[yellow]{problems} not exported[/yellow], see {escape(str(out / 'problems.jsonl'))}", soft_wrap=True
        )


def _table(manifest: dict[str, Any]) -> Table:
    from rich.table import Table

    counts = manifest["counts"]
    table = Table(
        "File", "Entries", "Pairs", title=f"{counts['regions']} regions of {counts['annotations']} annotations"
    )
    for name, file in manifest["files"].items():
        if file["entries"] is not None:
            table.add_row(name, str(file["entries"]), str(manifest["pairs"].get(name, "")))
    return table
