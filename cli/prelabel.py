"""`osprey prelabel`: find and describe every region of a Label Studio project, as predictions."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer

from cli.screen import FAILED, complain, failures, long_bar, read_settings, stoppable

if TYPE_CHECKING:
    from job_queue.contracts import PrelabelJob
    from worker.prelabel.runs import RunState
    from worker.settings import Settings

_LOOK_EVERY_S = 0.5
_MOST_TASKS = 1_000_000  # in one range


def prelabel(
    project: Annotated[int, typer.Option(help="Number of the project, as in its address in Label Studio.")],
    tasks: Annotated[str, typer.Option(help="Numbers of the tasks, such as 1,2,5-9. Default: all.")] = "",
    max_regions: Annotated[
        int, typer.Option(min=1, help="Largest number of regions per image; those with the best scores are kept.")
    ] = 50,
    min_score: Annotated[float, typer.Option(min=0, max=1, help="Leave out regions with a lower score.")] = 0.0,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the predictions that this model version has made before.")
    ] = False,
    device: Annotated[
        str, typer.Option(help="Device of the models: auto, cpu, cuda or cuda:N. Default: OSPREY_DEVICE.")
    ] = "",
    queue: Annotated[
        bool, typer.Option("--queue", help="Let a worker of the queue prelabel do it; this command shows its progress.")
    ] = False,
) -> None:
    """Pre-annotate a project: find the regions of every image and fill their fields.

    Tasks that already have a prediction of this model version are skipped, so the same command continues a run that
    was stopped. It runs in this process, with the lowest priority, unless --queue is given. OSPREY_LABEL_STUDIO_URL and
    OSPREY_LABEL_STUDIO_TOKEN say where Label Studio is.
    """
    from rich.console import Console

    from job_queue.contracts import PrelabelJob
    from worker.settings import Settings

    settings = read_settings(Settings)
    try:
        wanted = tuple(sorted(parse_task_ids(tasks))) if tasks.strip() else None
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--tasks") from error
    job = PrelabelJob(project, secrets.token_hex(8), wanted, max_regions, min_score, force)
    what_stays = "What was finished is in Label Studio; run the same command to continue."
    with (
        stoppable("The worker continues." if queue else what_stays),
        failures("Not pre-annotated", advice=what_stays),
        long_bar("tasks") as bar,
    ):

        def show(state: RunState) -> None:
            bar.show(f"Project {project}", state.annotated + len(state.failures), state.open, regions=state.regions)

        state = _watch(settings, job, show) if queue else _run(settings, job, device or settings.device, show)
    console = Console()
    console.print(
        f"{state.pushed} tasks pre-annotated ({state.regions} regions), {state.skipped} were before, "
        f"{len(state.failures)} failed."
    )
    for failure in state.failures:
        complain(f"task {failure.task_id}", failure.message)
    if state.failures:
        raise typer.Exit(FAILED)


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
    """Pre-annotate in this process."""
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
    """Let a worker pre-annotate, and show its progress.

    Raises:
        OspreyError: no worker serves the queue, or the run ended before its last task.
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
