"""`osprey export`: write the submitted annotations of a project as a version of training data."""

from __future__ import annotations

from contextlib import closing
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.screen import WRONG_USE, fail, failures, read_settings, step_bars

if TYPE_CHECKING:
    from rich.table import Table


class Layout(StrEnum):
    """The layouts of `learning.export.layouts`, for the command's help."""

    OSPREY_724K = "osprey-724k"
    COCO = "coco"
    PARQUET = "parquet"


def export(
    project: Annotated[int, typer.Option(help="Number of the project, as in its address in Label Studio.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder that holds the versions. Default: OSPREY_EXPORTS, else ./exports.")
    ] = None,
    from_store: Annotated[
        bool,
        typer.Option(
            "--from-store", help="Export what `osprey collect` has stored, without a request to Label Studio."
        ),
    ] = False,
    layout: Annotated[Layout, typer.Option("--format", help="Format of the training files.")] = Layout.OSPREY_724K,
    with_images: Annotated[
        bool,
        typer.Option(
            "--with-images/--without-images",
            help="Copy the images into the version, so that training needs nothing else.",
        ),
    ] = True,
    held_out: Annotated[
        float, typer.Option(min=0, max=0.99, help="Share of the images that training leaves out, for evaluation.")
    ] = 0.1,
    seed: Annotated[int, typer.Option(help="Random seed for the split and for sampling negative categories.")] = 0,
    edited_weight: Annotated[
        float, typer.Option(min=0.001, max=1000, help="Training weight of answers that a person wrote or changed.")
    ] = 3.0,
) -> None:
    """Write the submitted annotations of a project as a version of training data: a folder that never changes.

    The same annotations give the same version. The last line names its folder. OSPREY_LABEL_STUDIO_URL and
    OSPREY_LABEL_STUDIO_TOKEN say where Label Studio is.
    """
    from rich.console import Console
    from rich.markup import escape

    from learning.corrections.store import Store
    from learning.corrections.stored_submissions import submissions_of_store
    from learning.export.version import ExportOptions, export_version
    from learning.settings import Settings
    from learning.submitted.submissions import submissions_of_tasks
    from worker.images.resolver import ImageResolver
    from worker.label_studio.annotations import annotation_source

    console = Console()
    settings = read_settings(Settings)
    if not settings.label_studio_url and not from_store:
        reason = "set OSPREY_LABEL_STUDIO_URL to Label Studio's address, and OSPREY_LABEL_STUDIO_TOKEN"
        fail("Not exported", reason, WRONG_USE)
    options = ExportOptions(layout.value, held_out, seed, edited_weight)
    with failures("Not exported"), step_bars() as bars:
        if from_store:
            with Store.open(settings.database_url) as store:
                submissions = submissions_of_store(store, project)
        else:
            with annotation_source(settings) as source:
                submissions = submissions_of_tasks(
                    source.project(project), source.tasks(project), on_task=lambda: bars.advance("tasks read")
                )
        num_images = len(submissions.images)
        with closing(ImageResolver(settings)) as images:
            version = export_version(
                submissions,
                out or settings.exports,
                options,
                images if with_images else None,
                on_image=lambda: bars.advance("images copied", num_images),
            )
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
