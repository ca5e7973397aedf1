"""`osprey models pull|convert|list`: the published checkpoints onto this machine; `list` is `cli/registry.py`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(name="models", no_args_is_help=True, help="Published checkpoints and registered versions.")


@app.callback()
def models() -> None:
    """Published checkpoints."""


@app.command()
def pull(
    name: Annotated[str, typer.Argument(help="osprey-7b, osprey-chat-7b, osprey-7b-stage2, sam-vit-b, -l or -h.")],
    to: Annotated[Path, typer.Option(help="The folder that checkpoints are kept in.")] = Path("checkpoints"),
) -> None:
    """Fetch a published checkpoint; an interrupted one is continued, sizes and checksums are verified.

    HF_ENDPOINT names another hub for Osprey, OSPREY_SAM_MIRROR another place for SAM's files.
    """
    import httpx
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TaskID,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    from registry.downloads import DownloadFailed, fetch
    from registry.official_models import Mirrors, default_place, files_of

    console, errors = Console(), Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    try:
        with httpx.Client(follow_redirects=True, timeout=30) as client, Progress(*columns, console=errors) as progress:
            files = files_of(client, name, Mirrors.from_env(os.environ))
            place = default_place(name, to)
            for file in files:
                bar = progress.add_task(escape(file.name), total=file.size)

                def show(done: int, total: int | None, bar: TaskID = bar) -> None:
                    progress.update(bar, completed=done, total=total)

                path = fetch(client, file, place, on_progress=show)
    except (DownloadFailed, ValueError) as error:
        errors.print(f"[red]Not fetched:[/red] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(1) from error
    console.print(escape(str(path if len(files) == 1 else place)), soft_wrap=True)


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="A released checkpoint's folder.")],
    target: Annotated[Path, typer.Argument(help="A new or empty folder.")],
) -> None:
    """Write a checkpoint once as safetensors, with config and tokenizer; a key that does not fit is an error."""
    from rich.console import Console
    from rich.markup import escape

    from osprey_model.weights.convert import convert_checkpoint

    try:
        count = convert_checkpoint(source, target)
    except (OSError, ValueError) as error:
        Console(stderr=True).print(f"[red]Not converted:[/red] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(1) from error
    Console().print(f"{count} tensors in {escape(str(target))}", soft_wrap=True)


@app.command()
def start(
    llm: Annotated[Path, typer.Argument(help="LLaMA or Vicuna folder: config, weights, tokenizer.")],
    clip: Annotated[Path, typer.Argument(help="CLIP's file of open_clip, such as open_clip_pytorch_model.bin.")],
    target: Annotated[Path, typer.Argument(help="A new or empty folder.")],
    projector: Annotated[Path | None, typer.Option(help="Stage 1's mm_projector.bin; without it a fresh one.")] = None,
    seed: Annotated[int, typer.Option(help="Of the fresh weights.")] = 0,
) -> None:
    """Put together what stage 1 or 2 starts from: language model, CLIP tower, projector, a fresh mask extractor."""
    from rich.console import Console
    from rich.markup import escape

    from osprey_model.training.start import assemble_start

    try:
        assemble_start(llm, clip, target, projector=projector, seed=seed)
    except (OSError, ValueError) as error:
        Console(stderr=True).print(f"[red]Not put together:[/red] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(1) from error
    Console().print(escape(str(target)), soft_wrap=True)
