"""`osprey finetune`: fine-tune the champion on a project's corrections, in this process."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.screen import failures, read_settings, step_bars

if TYPE_CHECKING:
    from rich.console import Console

    from learning.corrections.store import Store
    from learning.settings import Settings
    from learning.training.finetune import FineTuned


def finetune(
    project: Annotated[
        int | None, typer.Option(help="Number of the project: collect, export and train on its corrections.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of an export version to train on instead.")] = None,
    epochs: Annotated[
        float | None, typer.Option(help="Largest number of passes over new and replayed entries.")
    ] = None,
    max_steps: Annotated[int | None, typer.Option(help="Stop after this many optimizer steps.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Learning rate after the warm-up.")] = None,
    replay: Annotated[float | None, typer.Option(help="Replay entries (OSPREY_REPLAY) per new entry.")] = None,
    seed: Annotated[int | None, typer.Option(help="Random seed for data order, replay and new LoRA matrices.")] = None,
    gate: Annotated[bool | None, typer.Option(help="Run the gate on the result.")] = None,
    device: Annotated[str, typer.Option(help="Device to train on: auto, cpu or cuda. Default: OSPREY_DEVICE.")] = "",
) -> None:
    """Fine-tune the current champion on new corrections, register the result and run the gate.

    Defaults come from OSPREY_FINETUNE_*, then from finetune.json beside the weights of OSPREY_MODEL. The same command
    continues a run that was killed. `osprey promote` puts the result into service; OSPREY_AUTO_PROMOTE=on does so when
    the gate is passed.
    """
    import contextlib

    from rich.console import Console

    from learning.corrections.store import Store
    from learning.settings import Settings
    from learning.training.finetune import finetune as tune
    from learning.training.finetune import train_candidate
    from learning.training.options import FineTuneOptions
    from registry.sets_in_making import WAITING
    from worker.processor import pick_device

    if (project is None) == (data is None):
        raise typer.BadParameter("give either --project or --data")
    waiting = {WAITING: "Base set and replay data are being made; this waits for them."}
    with failures("Not fine-tuned"), step_bars(waiting) as bars, contextlib.ExitStack() as opened:
        settings = read_settings(Settings)
        options = FineTuneOptions.for_checkpoint(
            settings.model, os.environ, epochs=epochs, max_steps=max_steps, learning_rate=learning_rate, replay=replay,
            seed=seed, gate=gate,
        )  # fmt: skip
        device = device or settings.device
        device = pick_device() if device == "auto" else device
        if data is not None:
            found = train_candidate(settings, data, options, device=device, on_progress=bars.show)
        else:
            assert project is not None, "checked above"
            store = opened.enter_context(Store.open(settings.database_url))
            if settings.label_studio_url:
                bars.show("collect", 0, 1)
                _collect(settings, store, project)
                bars.show("collect", 1, 1)
            found = tune(settings, store, project, options, device=device, on_progress=bars.show)
    _show(Console(), found)


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
    trained = "trained" if found.is_new else "was trained before"
    console.print(
        f"{escape(version.name)} {trained} on {escape(version.data_version or '')}: {metrics.get('steps')} steps, "
        f"held-out loss {metrics.get('held_out_loss')}",
        soft_wrap=True,
    )
    if found.gate is None:
        console.print(f"The gate was not run. Run it with: osprey gate {escape(version.name)}")
        return
    print_verdict(console, version.name, found.gate)
    if found.gate["passed"]:
        console.print(
            f"Put it into service with: osprey promote {escape(version.name)} (OSPREY_AUTO_PROMOTE=on has done so)"
        )
