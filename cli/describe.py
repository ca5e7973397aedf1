"""`osprey describe`: every region of every image of a folder, with its fields, without Label Studio."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from label_config.reader import LabelConfig


def describe(
    folder: Annotated[Path, typer.Argument(help="Images, also in folders below it.", exists=True, file_okay=False)],
    out: Annotated[Path, typer.Option(help="JSON lines, one per image; a second run goes on behind them.")],
    overlay: Annotated[
        bool, typer.Option("--overlay", help="Also draw masks and texts, into a folder beside OUT.")
    ] = False,
    label_config: Annotated[
        Path | None, typer.Option(help="Whose fields are asked; default: label_config/bitmask.xml.", dir_okay=False)
    ] = None,
    question: Annotated[
        list[str] | None, typer.Option(help="Ask this instead, with {region} in it; may be given several times.")
    ] = None,
    max_regions: Annotated[int, typer.Option(min=1, help="At most so many regions per image, the best ones.")] = 50,
    min_score: Annotated[float, typer.Option(min=0, max=1, help="Leave out regions of a lower score.")] = 0.0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N; default OSPREY_DEVICE.")] = "",
) -> None:
    """Find, nest and describe the regions of all images of a folder.

    An image that cannot be read is reported at the end, and the exit code is then 1.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    from job_queue.errors import OspreyError
    from registry.versions import RegistryError
    from worker.prelabel.annotate import AnnotateOptions
    from worker.prelabel.folder import FolderProgress, describe_folder
    from worker.prelabel.local_models import local_annotator
    from worker.settings import Settings

    console, errors = Console(), Console(stderr=True)
    settings = Settings.from_env(os.environ)
    config = _config(label_config, question or [])
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("images, {task.fields[regions]} regions"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    overlay_folder = out.with_name(f"{out.stem}_overlay") if overlay else None
    try:
        with Bar(*columns, console=errors) as progress_bar:
            shown = progress_bar.add_task("Loading models", total=None, regions=0)
            annotator = local_annotator(settings, device or settings.device, AnnotateOptions(max_regions, min_score))

            def show(progress: FolderProgress) -> None:
                progress_bar.update(
                    shown,
                    description=str(folder),
                    total=progress.total - progress.skipped,
                    completed=progress.described + len(progress.failures),
                    regions=progress.regions,
                )

            progress = describe_folder(folder, out, annotator, config, overlay_folder, settings.image_max_pixels, show)
    except KeyboardInterrupt:
        errors.print("Stopped. What was finished is in the file; run the same command to go on.")
        raise typer.Exit(130) from None
    except (OspreyError, RegistryError, OSError, ValueError) as error:
        errors.print(f"[red]Not described:[/red] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(1) from error
    console.print(
        f"{progress.described} images described ({progress.regions} regions), {progress.skipped} had been before, "
        f"{len(progress.failures)} failed: {escape(str(out))}",
        soft_wrap=True,
    )
    for failure in progress.failures:
        errors.print(f"[red]{escape(failure.path)}:[/red] {escape(failure.message)}", soft_wrap=True)
    if progress.failures:
        raise typer.Exit(1)


def _config(path: Path | None, questions: list[str]) -> LabelConfig:
    from label_config.reader import ConfigError, read_label_config
    from label_config.ready_configs import BITMASK
    from worker.prelabel.folder import config_of_questions

    if questions and path is not None:
        raise typer.BadParameter("give either --question or --label-config")
    try:
        if questions:
            return config_of_questions(questions)
        return read_label_config((path or BITMASK).read_text())
    except (ConfigError, ValueError, OSError) as error:
        raise typer.BadParameter(str(error)) from error
