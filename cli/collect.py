"""`osprey collect`: copy what annotators submitted from Label Studio into the correction store."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer

from cli.screen import FAILED, complain, failures, read_settings, step_bars

if TYPE_CHECKING:
    from rich.table import Table

    from learning.corrections.records import Counts


def collect(
    project: Annotated[
        list[int] | None,
        typer.Option(help="Number of a project; repeat the option for several. Default: OSPREY_PROJECTS, else all."),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Read every annotated task again, not only those that have changed.")
    ] = False,
) -> None:
    """Fetch corrections that webhooks missed, and print what the correction store holds.

    A running `osprey worker --queues data` does the same every few minutes.
    """
    from functools import partial

    from rich.console import Console

    from job_queue.errors import OspreyError
    from label_config.reader import ConfigError
    from learning.corrections.collect import Collector, served_projects
    from learning.corrections.store import Store
    from learning.settings import Settings
    from worker.images.resolver import ImageResolver
    from worker.label_studio.annotations import annotation_source

    settings = read_settings(Settings)
    counts: dict[str, Counts] = {}
    complaints: list[str] = []
    with (
        failures("Not collected"),
        Store.open(settings.database_url) as store,
        closing(ImageResolver(settings, decoded_bytes=1)) as images,
        annotation_source(settings) as source,
        step_bars() as bars,
    ):
        collector = Collector(store, source, settings.shares, images)
        for number in project or settings.projects or served_projects(list(source.projects())):
            show = partial(bars.show, f"project {number}")
            try:
                found = collector.reconcile(number, full=True, again=everything, on_task=show)
            except (ConfigError, OspreyError) as error:
                complaints.append(f"project {number}: {error}")
                continue
            complaints += [f"project {number}, task {each.task_id}: {each.reason}" for each in found.failed]
            counts[f"{number} {store.projects()[number]}"] = store.counts(number)
    Console().print(_table(counts))
    for complaint in complaints:
        complain("Not collected", complaint)
    if complaints:
        raise typer.Exit(FAILED)


def _table(counts: dict[str, Counts]) -> Table:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    # Nine columns fit into 80 characters only without borders; what gives way is the project's name.
    table = Table("Project", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for name in ("Tasks", "Annotations", "Deleted", "Regions", "Corrected", "Drawn", "Blind", "Problems"):
        table.add_column(name, no_wrap=True)
    for name, found in counts.items():
        figures = (
            found.tasks, found.annotations, found.deleted_annotations, found.regions, found.corrected_regions,
            found.drawn_regions, found.blind_regions, found.problems,
        )  # fmt: skip
        table.add_row(escape(name), *map(str, figures))
    return table
