"""`osprey models pull | convert | start`: get published checkpoints. `list` and `add` are in `registry.py`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from cli.screen import StepBars, error_console, failures, read_settings

app = typer.Typer(name="models", no_args_is_help=True, help="Download checkpoints; list and add model versions.")


@app.callback()
def models() -> None:
    """Download checkpoints; list and add model versions."""


@app.command()
def pull(
    name: Annotated[
        str, typer.Argument(help="osprey-7b, osprey-chat-7b, osprey-7b-stage2, sam-vit-b, sam-vit-l or sam-vit-h.")
    ],
    to: Annotated[Path, typer.Option(help="Folder for checkpoints.")] = Path("checkpoints"),
) -> None:
    """Download a published checkpoint. The same command continues a download that was interrupted.

    Sizes and checksums are verified. HF_ENDPOINT names another hub for Osprey, OSPREY_SAM_MIRROR another address for
    SAM.
    """
    from functools import partial

    import httpx
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    from registry.downloads import fetch
    from registry.official_models import Mirrors, default_place, files_of
    from worker.settings import Settings

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with (
        failures("Not downloaded"),
        httpx.Client(follow_redirects=True, timeout=30) as client,
        Progress(*columns, console=error_console()) as progress,
    ):
        bars = StepBars(progress)
        files = files_of(client, name, Mirrors.from_env(os.environ, read_settings(Settings).sam_mirror))
        place = default_place(name, to)
        for file in files:
            path = fetch(client, file, place, on_progress=partial(bars.show, escape(file.name)))
    Console().print(escape(str(path if len(files) == 1 else place)), soft_wrap=True)


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="Folder of a released checkpoint.")],
    target: Annotated[Path, typer.Argument(help="New or empty folder for the result.")],
) -> None:
    """Write a released checkpoint as safetensors, with its config and tokenizer.

    A weight that does not fit the config is an error.
    """
    from rich.console import Console
    from rich.markup import escape

    from osprey_model.weights.convert import convert_checkpoint

    with failures("Not converted"):
        count = convert_checkpoint(source, target)
    Console().print(f"{count} tensors in {escape(str(target))}", soft_wrap=True)


@app.command()
def start(
    llm: Annotated[Path, typer.Argument(help="Folder of LLaMA or Vicuna, with config, weights and tokenizer.")],
    clip: Annotated[
        Path, typer.Argument(help="File with the CLIP weights of open_clip, such as open_clip_pytorch_model.bin.")
    ],
    target: Annotated[Path, typer.Argument(help="New or empty folder for the result.")],
    projector: Annotated[
        Path | None, typer.Option(help="File mm_projector.bin of stage 1. Default: a new projector.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed for new weights.")] = 0,
) -> None:
    """Write the checkpoint that stage 1 or 2 starts from.

    It holds the language model, the CLIP tower, the projector and a new mask extractor.
    """
    from rich.console import Console
    from rich.markup import escape

    from osprey_model.training.start import assemble_start

    with failures("Not written"):
        assemble_start(llm, clip, target, projector=projector, seed=seed)
    Console().print(escape(str(target)), soft_wrap=True)
