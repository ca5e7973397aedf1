"""`osprey finetune`: learn from a project's corrections, here and now."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from learning.corrections.store import Store
    from learning.training.finetune import FineTuned
    from worker.settings import Settings


def finetune(
    project: Annotated[int | None, typer.Option(help="The project's number: collect, export and train on it.")] = None,
    data: Annotated[Path | None, typer.Option(help="Train on this export version instead.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over new and replayed entries, at most.")] = None,
    max_steps: Annotated[int | None, typer.Option(help="Stop after so many optimizer steps.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="The highest, after the warm-up.")] = None,
    replay: Annotated[float | None, typer.Option(help="Old entries (OSPREY_REPLAY) for each new one.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of data order, replay and fresh matrices.")] = None,
    gate: Annotated[bool | None, typer.Option(help="Examine the candidate against the champion.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "",
) -> None:
    """Train a candidate from the champion, register it and let it sit the gate.

    Other defaults: OSPREY_FINETUNE_*, then finetune.json beside the weights of OSPREY_MODEL. The same command
    continues a run that was killed. `osprey promote` makes a candidate serve, or OSPREY_AUTO_PROMOTE=on.
    """
    import contextlib

    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress, TaskID

    from job_queue.errors import OspreyError
    from learning.corrections.store import Store
    from learning.training.finetune import finetune as tune
    from learning.training.finetune import train_candidate
    from learning.training.options import FineTuneOptions
    from worker.processor import pick_device
    from worker.settings import Settings

    console, errors = Console(), Console(stderr=True)
    if (project is None) == (data is None):
        raise typer.BadParameter("give either --project or --data")
    try:
        settings = Settings.from_env(os.environ)
        options = FineTuneOptions.for_checkpoint(
            settings.model, os.environ, epochs=epochs, max_steps=max_steps, learning_rate=learning_rate, replay=replay,
            seed=seed, gate=gate,
        )  # fmt: skip
        device = device or settings.device
        device = pick_device() if device == "auto" else device
        with Progress(console=errors, transient=True) as progress, contextlib.ExitStack() as opened:
            bars: dict[str, TaskID] = {}

            def show(what: str, done: int, total: int) -> None:
                if what not in bars:
                    bars[what] = progress.add_task(what, total=total)
                progress.update(bars[what], completed=done, total=total)

            if data is not None:
                found = train_candidate(settings, data, options, device=device, on_progress=show)
            else:
                assert project is not None, "checked above"
                store = opened.enter_context(Store.open(settings.database_url))
                if settings.label_studio_url:
                    show("collect", 0, 1)
                    _collect(settings, store, project)
                    show("collect", 1, 1)
                found = tune(settings, store, project, options, device=device, on_progress=show)
    except (OspreyError, ValueError, OSError) as error:
        errors.print(f"[red]Not fine-tuned:[/red] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(1) from error
    _show(console, found)


def _collect(settings: Settings, store: Store, project_id: int) -> None:
    from contextlib import closing

    from learning.corrections.collect import Collector
    from worker.images.resolver import ImageResolver
    from worker.label_studio.annotations import annotation_source

    with closing(ImageResolver(settings, decoded_bytes=1)) as images, annotation_source(settings) as source:
        Collector(store, source, settings.shares, images).reconcile(project_id)


def _show(console: Console, found: FineTuned) -> None:
    from rich.markup import escape

    from cli.registry import print_verdict

    version, metrics = found.version, found.version.metrics
    told = "trained" if found.is_new else "was trained before"
    console.print(
        f"{escape(version.name)} {told} on {escape(version.data_version or '')}: {metrics.get('steps')} steps, "
        f"held-out loss {metrics.get('held_out_loss')}",
        soft_wrap=True,
    )
    if found.gate is None:
        console.print(f"Not examined yet: osprey gate {escape(version.name)}")
        return
    print_verdict(console, version.name, found.gate)
    if found.gate["passed"]:
        console.print(f"osprey promote {escape(version.name)} makes it serve, unless OSPREY_AUTO_PROMOTE did.")
