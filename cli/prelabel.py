"""`osprey prelabel`: every region of every task of a Label Studio project, with its fields, as predictions."""

from __future__ import annotations

import os
from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker.prelabel.project import TaskFailure


def prelabel(
    project: Annotated[int, typer.Option(help="The project's number, as in its address.")],
    tasks: Annotated[str, typer.Option(help="Only these tasks, such as 1,2,5-9.")] = "",
    max_regions: Annotated[int, typer.Option(min=1, help="At most so many regions per image, the best ones.")] = 50,
    min_score: Annotated[float, typer.Option(min=0, max=1, help="Leave out regions of a lower score.")] = 0.0,
    force: Annotated[bool, typer.Option("--force", help="Replace predictions of this model version.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N; default OSPREY_DEVICE.")] = "",
) -> None:
    """Pre-annotate a project: find, nest and describe the regions of every image.

    Tasks that have a prediction of this model version are left alone, so a run that was stopped is continued by the
    same command. Runs in this process, with the lowest priority. Label Studio's address and token come from
    OSPREY_LABEL_STUDIO_URL and OSPREY_LABEL_STUDIO_TOKEN.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    from label_config.reader import ConfigError
    from worker.errors import WorkerError
    from worker.images import ImageResolver
    from worker.learning.registry import RegistryError
    from worker.prelabel.annotate import AnnotateOptions
    from worker.prelabel.label_studio_predictions import prediction_store
    from worker.prelabel.local_models import local_annotator
    from worker.prelabel.project import Progress, ProjectPrelabeler
    from worker.prelabel.task_ids import parse_task_ids
    from worker.settings import Settings

    console, errors = Console(), Console(stderr=True)
    settings = Settings.from_env(os.environ)
    try:
        wanted = parse_task_ids(tasks) if tasks.strip() else None
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--tasks") from error
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("tasks, {task.fields[regions]} regions"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    try:
        with (
            prediction_store(settings) as store,
            closing(ImageResolver(settings)) as images,
            Bar(*columns, console=errors) as progress_bar,
        ):
            shown = progress_bar.add_task("Loading models", total=None, regions=0)
            annotator = local_annotator(settings, device or settings.device, AnnotateOptions(max_regions, min_score))

            def show(progress: Progress) -> None:
                # What was done before this run would make the time that is left look short.
                progress_bar.update(
                    shown,
                    description=f"Project {project}",
                    total=progress.total - progress.skipped,
                    completed=progress.num_annotated,
                    regions=progress.regions,
                )

            progress = ProjectPrelabeler(store, images, annotator, show, settings.shares).run(
                project, wanted, force=force
            )
    except KeyboardInterrupt:
        errors.print("Stopped. What was finished is in Label Studio; run the same command to go on.")
        raise typer.Exit(130) from None
    except (WorkerError, RegistryError, ConfigError) as error:
        errors.print(f"[red]Not pre-annotated:[/red] {escape(str(error))}", soft_wrap=True)
        errors.print("What was pushed stays; run the same command to go on.")
        raise typer.Exit(1) from error
    console.print(
        f"{progress.pushed} tasks pre-annotated as {escape(annotator.model_version)} ({progress.regions} regions), "
        f"{progress.skipped} had been before, {len(progress.failures)} failed."
    )
    _print_failures(progress.failures)
    if progress.failures:
        raise typer.Exit(1)


def _print_failures(failures: Sequence[TaskFailure]) -> None:
    from rich.console import Console
    from rich.markup import escape

    errors = Console(stderr=True)
    for failure in failures:
        errors.print(f"[red]task {failure.task_id}:[/red] {escape(failure.message)}", soft_wrap=True)
