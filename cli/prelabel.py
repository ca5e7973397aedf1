"""`osprey prelabel`: every region of every task of a Label Studio project, with its fields, as predictions."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from job_queue.contracts import PrelabelJob
    from worker.prelabel.runs import RunState
    from worker.settings import Settings

_LOOK_EVERY_S = 0.5
_MOST_TASKS = 1_000_000  # in one range


def prelabel(
    project: Annotated[int, typer.Option(help="The project's number, as in its address.")],
    tasks: Annotated[str, typer.Option(help="Only these tasks, such as 1,2,5-9.")] = "",
    max_regions: Annotated[int, typer.Option(min=1, help="At most so many regions per image, the best ones.")] = 50,
    min_score: Annotated[float, typer.Option(min=0, max=1, help="Leave out regions of a lower score.")] = 0.0,
    force: Annotated[bool, typer.Option("--force", help="Replace predictions of this model version.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N; default OSPREY_DEVICE.")] = "",
    queue: Annotated[
        bool, typer.Option("--queue", help="A worker of the queue prelabel does it; this command only watches.")
    ] = False,
) -> None:
    """Pre-annotate a project: find, nest and describe the regions of every image.

    Tasks that have a prediction of this model version are left alone, so a run that was stopped is continued by the
    same command. Runs in this process, with the lowest priority, unless --queue is given. Label Studio's address and
    token come from OSPREY_LABEL_STUDIO_URL and OSPREY_LABEL_STUDIO_TOKEN.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from job_queue.contracts import PrelabelJob
    from job_queue.errors import OspreyError
    from label_config.reader import ConfigError
    from registry.versions import RegistryError
    from worker.settings import Settings

    console, errors = Console(), Console(stderr=True)
    settings = Settings.from_env(os.environ)
    try:
        wanted = tuple(sorted(parse_task_ids(tasks))) if tasks.strip() else None
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--tasks") from error
    job = PrelabelJob(project, secrets.token_hex(8), wanted, max_regions, min_score, force)
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
        with Progress(*columns, console=errors) as progress_bar:
            shown = progress_bar.add_task(f"Project {project}", total=None, regions=0)

            def show(state: RunState) -> None:
                seen = state.annotated + len(state.failures)
                progress_bar.update(shown, total=state.open, completed=seen, regions=state.regions)

            state = _watch(settings, job, show) if queue else _run(settings, job, device or settings.device, show)
    except KeyboardInterrupt:
        goes_on = (
            "The worker goes on." if queue else "What was finished is in Label Studio; run the same command to go on."
        )
        errors.print(f"Stopped. {goes_on}")
        raise typer.Exit(130) from None
    except (OspreyError, RegistryError, ConfigError) as error:
        errors.print(f"[red]Not pre-annotated:[/red] {escape(str(error))}", soft_wrap=True)
        errors.print("What was pushed stays; run the same command to go on.")
        raise typer.Exit(1) from error
    console.print(
        f"{state.pushed} tasks pre-annotated ({state.regions} regions), {state.skipped} had been before, "
        f"{len(state.failures)} failed."
    )
    for failure in state.failures:
        errors.print(f"[red]task {failure.task_id}:[/red] {escape(failure.message)}", soft_wrap=True)
    if state.failures:
        raise typer.Exit(1)


def parse_task_ids(text: str) -> frozenset[int]:
    """Read the task ids of a list of numbers and ranges, such as `1,2,5-9`.

    Raises:
        ValueError: an entry is not a number or a rising range, or a range is too long.
    """
    ids: set[int] = set()
    for piece in (piece.strip() for piece in text.split(",")):
        first, dash, last = piece.partition("-")
        if not first.strip().isdecimal() or (dash and not last.strip().isdecimal()):
            raise ValueError(f"expected task numbers such as 1,2,5-9, got {piece!r}")
        low, high = int(first), int(last) if dash else int(first)
        if not low <= high or high - low >= _MOST_TASKS:
            raise ValueError(f"expected a range that rises and is of at most {_MOST_TASKS} tasks, got {piece!r}")
        ids.update(range(low, high + 1))
    return frozenset(ids)


def _run(settings: Settings, job: PrelabelJob, device: str, show: Callable[[RunState], None]) -> RunState:
    """Do it here."""
    from worker.images.resolver import ImageResolver
    from worker.label_studio.prediction_store import prediction_store
    from worker.prelabel.annotate import AnnotateOptions
    from worker.prelabel.local_models import local_annotator
    from worker.prelabel.project import ProjectPrelabeler
    from worker.prelabel.runs import RunState

    options = AnnotateOptions(job.max_regions, job.min_score)
    with prediction_store(settings) as store, closing(ImageResolver(settings)) as images:
        run = ProjectPrelabeler(
            store,
            images,
            local_annotator(settings, device, options),
            lambda progress: show(RunState().and_then(progress)),
            settings.shares,
        )
        return RunState().and_then(run.run(job.project_id, job.task_ids, force=job.force))


def _watch(settings: Settings, job: PrelabelJob, show: Callable[[RunState], None]) -> RunState:
    """Hand it to a worker and look how far it is.

    Raises:
        OspreyError: nobody serves the queue, or the run ended before its last task.
    """
    from job_queue.errors import OspreyError
    from job_queue.queue import JobQueue, connect
    from worker.prelabel.runs import read_run

    JobQueue(settings.redis_url, settings.queue).submit(job)
    with connect(settings.redis_url, settings.queue.redis_timeout_s) as redis:
        while not (state := read_run(redis, job.run_id)).is_ended:
            show(state)
            time.sleep(_LOOK_EVERY_S)
    show(state)
    if state.error is not None:
        raise OspreyError(state.error)
    return state
