"""`osprey describe`: find and describe every region of the images of a folder, without Label Studio."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.screen import FAILED, complain, failures, long_bar, read_settings, stoppable

if TYPE_CHECKING:
    from label_config.reader import LabelConfig


def describe(
    folder: Annotated[
        Path, typer.Argument(help="Folder with images; folders below it are read too.", exists=True, file_okay=False)
    ],
    out: Annotated[Path, typer.Option(help="Result: one JSON line per image. A second run continues the file.")],
    overlay: Annotated[
        bool, typer.Option("--overlay", help="Also draw masks and values on the images, into a folder beside OUT.")
    ] = False,
    label_config: Annotated[
        Path | None,
        typer.Option(
            help="Labeling config whose fields are filled. Default: label_config/bitmask.xml.", dir_okay=False
        ),
    ] = None,
    question: Annotated[
        list[str] | None,
        typer.Option(help="Question to ask instead, with {region} in it; repeat the option for several."),
    ] = None,
    max_regions: Annotated[
        int, typer.Option(min=1, help="Largest number of regions per image; those with the best scores are kept.")
    ] = 50,
    min_score: Annotated[float, typer.Option(min=0, max=1, help="Leave out regions with a lower score.")] = 0.0,
    device: Annotated[
        str, typer.Option(help="Device of the models: auto, cpu, cuda or cuda:N. Default: OSPREY_DEVICE.")
    ] = "",
) -> None:
    """Find the regions of all images of a folder, nest parts under their objects, and fill their fields.

    Images that cannot be read are listed at the end, and the exit code is then 1.
    """
    from rich.console import Console
    from rich.markup import escape

    from worker.prelabel.annotate import AnnotateOptions
    from worker.prelabel.folder import FolderProgress, describe_folder
    from worker.prelabel.local_models import local_annotator
    from worker.settings import Settings

    console = Console()
    settings = read_settings(Settings)
    config = _config(label_config, question or [])
    overlay_folder = out.with_name(f"{out.stem}_overlay") if overlay else None
    with (
        stoppable("What was finished is in the file; run the same command to continue."),
        failures("Not described"),
        long_bar("images") as bar,
    ):

        def show(progress: FolderProgress) -> None:
            done = progress.described + len(progress.failures)
            bar.show(str(folder), done, progress.total - progress.skipped, regions=progress.regions)

        annotator = local_annotator(settings, device or settings.device, AnnotateOptions(max_regions, min_score))
        progress = describe_folder(folder, out, annotator, config, overlay_folder, settings.image_max_pixels, show)
    console.print(
        f"{progress.described} images described ({progress.regions} regions), {progress.skipped} were before, "
        f"{len(progress.failures)} failed: {escape(str(out))}",
        soft_wrap=True,
    )
    for failure in progress.failures:
        complain(failure.path, failure.message)
    if progress.failures:
        raise typer.Exit(FAILED)


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
