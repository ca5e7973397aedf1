"""`osprey worker` starts a worker; `osprey status` shows the workers, the queues and the last failures."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cli.screen import read_settings

if TYPE_CHECKING:
    from job_queue.queue import JobQueue, QueueHealth
    from learning.settings import Settings


def worker(
    queues: Annotated[
        str,
        typer.Option(
            help="Queues to serve, separated by commas, the most urgent first: masks and describe, or one of "
            "data, train and prelabel, which each need a worker of their own."
        ),
    ] = "masks,describe",
    device: Annotated[
        str, typer.Option(help="Device of the models: auto, cpu, cuda or cuda:N. Default: OSPREY_DEVICE.")
    ] = "",
) -> None:
    """Run the jobs of one or more queues until stopped: masks, answers, corrections or fine-tunes."""
    from job_queue.job_kinds import DATA_QUEUE, TRAIN_QUEUE

    names = [name.strip() for name in queues.split(",") if name.strip()]
    try:
        if {DATA_QUEUE, TRAIN_QUEUE} & set(names):
            from learning.main import main as learn

            learn(os.environ, names, device or None)
        else:
            from worker.main import main as serve

            serve(os.environ, names, device or None)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def status(
    this_machine: Annotated[
        bool,
        typer.Option("--this-machine", help="Exit code 0 when a worker of this machine is ready, for health checks."),
    ] = False,
) -> None:
    """Show queues, workers with their models, and the last failures. Exit code 1: a click cannot be answered."""
    from job_queue.job_kinds import QUEUE_NAMES
    from job_queue.queue import JobQueue
    from learning.settings import Settings

    settings = read_settings(Settings)
    queue = JobQueue(settings.redis_url, settings.queue)
    health = queue.health()
    console = Console()
    if not health.redis_ok:
        console.print(f"[red]Redis does not answer:[/] {health.problem}")
        raise typer.Exit(1)
    console.print("Redis answers.")
    console.print(_queues_table(health))
    console.print(_workers_table(health) if health.workers else "[red]No worker runs.[/]")
    for beat in health.workers:
        if beat.problem:
            console.print(f"[red]{beat.name}:[/] {beat.problem}")
    _print_sets(console, settings)
    _print_progress(console, queue)
    _print_failures(console, queue)
    if this_machine:
        ready = any(beat.host == socket.gethostname() and beat.state in ("idle", "busy") for beat in health.workers)
    else:
        ready = all(health.queues[name].workers for name in QUEUE_NAMES)  # what a click needs
    raise typer.Exit(0 if ready else 1)


def _queues_table(health: QueueHealth) -> Table:
    table = Table("Queue", "Workers", "Clicks waiting", "Background", "Model", "Device")
    for name, state in health.queues.items():
        workers = str(state.workers) if state.workers else "[red]none[/]"
        waiting, background = str(state.depth), str(state.background_depth)
        table.add_row(name, workers, waiting, background, ", ".join(state.model_versions), ", ".join(state.devices))
    return table


def _workers_table(health: QueueHealth) -> Table:
    table = Table("Worker", "Process", "Queues", "State", "Last sign", "Device", "Models")
    for beat in health.workers:
        table.add_row(
            beat.name,
            f"{beat.pid} on {beat.host}",
            ", ".join(beat.queues),
            f"[red]{beat.state}[/]" if beat.problem else beat.state,
            f"{beat.age_s:.0f} s ago",
            beat.device,
            ", ".join(beat.model_versions.values()),
        )
    return table


def _print_sets(console: Console, settings: Settings) -> None:
    from registry.sets_in_making import making_of

    for path in filter(None, (settings.base_set, settings.replay)):
        if (making := making_of(path)) is not None:
            state = f"[red]{escape(making.text)}[/]" if making.is_given_up else escape(making.text)
            console.print(f"Base set and replay data, for which a fine-tune waits: {state}", soft_wrap=True)
            return


def _print_progress(console: Console, queue: JobQueue) -> None:
    progress = queue.finetune_progress()
    if progress is None:
        return
    state = progress.outcome or f"{progress.what} {progress.done} of {progress.total}"
    left = "" if progress.left_s is None else f", about {progress.left_s / 60:.0f} min left"
    console.print(f"Fine-tune of project {progress.project_id}: {escape(state)}{left}", soft_wrap=True)


def _print_failures(console: Console, queue: JobQueue) -> None:
    failures = queue.recent_failures(10)
    if not failures:
        console.print("No failures.")
        return
    table = Table("At", "Where", "Task", "What", title="Last failures")
    for failure in failures:
        task = "" if failure.task_id is None else str(failure.task_id)
        table.add_row(failure.at, failure.where, task, failure.message)
    console.print(table)
