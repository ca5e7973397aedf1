"""`osprey export`: submitted annotations of a Label Studio project as a version of training data."""

from __future__ import annotations

import os
from contextlib import closing
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table


class Layout(StrEnum):
    """The layouts of `learning.export.layouts`, for the command's help."""

    OSPREY_724K = "osprey-724k"
    COCO = "coco"
    PARQUET = "parquet"


def export(
    project: Annotated[int, typer.Option(help="The project's number, as in its address.")],
    out: Annotated[
        Path | None, typer.Option(help="The folder that holds versions; default OSPREY_EXPORTS, or ./exports.")
    ] = None,
    from_store: Annotated[
        bool, typer.Option("--from-store", help="Export what `osprey collect` has stored, without asking Label Studio.")
    ] = False,
    layout: Annotated[Layout, typer.Option("--format", help="Layout of the training files.")] = Layout.OSPREY_724K,
    with_images: Annotated[
        bool,
        typer.Option(
            "--with-images/--without-images",
            help="Copy the images into the version, so that it can be trained on as it is.",
        ),
    ] = True,
    held_out: Annotated[float, typer.Option(min=0, max=0.99, help="Share of images that are not trained on.")] = 0.1,
    seed: Annotated[int, typer.Option(help="Of the split and of drawn wrong categories.")] = 0,
    edited_weight: Annotated[
        float, typer.Option(min=0.001, max=1000, help="What an answer counts that a person wrote or changed.")
    ] = 3.0,
) -> None:
    """Write a project's submitted annotations as a version of training data: a folder that is never changed again.

    The same annotations give the same version. Its name comes last on the screen. Label Studio's address and token come
    from OSPREY_LABEL_STUDIO_URL and OSPREY_LABEL_STUDIO_TOKEN.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from job_queue.errors import OspreyError
    from label_config.reader import ConfigError
    from learning.export.version import ExportOptions, export_version
    from learning.submitted.submissions import submissions_of_tasks
    from worker.images.resolver import ImageResolver
    from worker.label_studio.annotations import annotation_source
    from worker.settings import Settings

    console, errors = Console(), Console(stderr=True)
    settings = Settings.from_env(os.environ)
    if not settings.label_studio_url and not from_store:
        errors.print("[red]Set OSPREY_LABEL_STUDIO_URL[/red] to Label Studio's address and OSPREY_LABEL_STUDIO_TOKEN")
        raise typer.Exit(2)
    options = ExportOptions(layout.value, held_out, seed, edited_weight)
    columns = (SpinnerColumn(), TextColumn("{task.completed} {task.description}"), TimeElapsedColumn())
    try:
        with Progress(*columns, console=errors, transient=True) as progress:
            if from_store:
                from learning.corrections.store import Store
                from learning.corrections.stored_submissions import submissions_of_store

                with Store.open(settings.database_url) as store:
                    submissions = submissions_of_store(store, project)
            else:
                bar = progress.add_task("tasks read", total=None)
                with annotation_source(settings) as source:
                    submissions = submissions_of_tasks(
                        source.project(project), source.tasks(project), on_task=lambda: progress.advance(bar)
                    )
            image_bar = progress.add_task("images copied", total=len(submissions.images), visible=with_images)
            with closing(ImageResolver(settings)) as images:
                version = export_version(
                    submissions,
                    out or settings.exports,
                    options,
                    images if with_images else None,
                    on_image=lambda: progress.advance(image_bar),
                )
    except (OspreyError, ConfigError, OSError) as error:
        errors.print(f"[red]Not exported:[/red] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(1) from error
    console.print(_table(version.manifest))
    problems = version.manifest["problems"]
    if not version.manifest["counts"]["regions"]:
        console.print(
            f"[yellow]Nothing is submitted in project {project} yet:[/yellow] the version is empty", soft_wrap=True
        )
    if problems:
        kinds = ", ".join(f"{kind} {count}" for kind, count in problems.items())
        where = escape(str(version.path / "problems.jsonl"))
        console.print(f"[yellow]Not exported, or not as submitted: {kinds}[/yellow], see {where}", soft_wrap=True)
    console.print(f"{'New' if version.is_new else 'Unchanged'}: {escape(str(version.path))}", soft_wrap=True)


def _table(manifest: dict[str, Any]) -> Table:
    from rich.table import Table

    counts = manifest["counts"]
    table = Table(
        "File", "Entries", "Pairs", title=f"{counts['regions']} regions of {counts['annotations']} annotations"
    )
    for name, file in manifest["files"].items():
        if not name.startswith(("images/", "samples/")):
            table.add_row(name, str(file.get("entries", "")), str(file.get("pairs", "")))
    return table
