"""Train the small SAM of the demo: `python -m demo.training.sam --out demo/checkpoints/sam-nano --minutes 75`.

Scenes are rendered in the background while the network learns. `--resume` continues after a stop.
The model itself is described in the README beside the checkpoint.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from demo.training.sam.sam_loop import Trainer, TrainSettings


def main(
    out: Annotated[Path, typer.Option(help="Folder that gets config.json and model.safetensors.")],
    minutes: Annotated[float, typer.Option(help="Wall time to train for.")] = 75.0,
    resume: Annotated[bool, typer.Option(help="Continue from the work folder's last snapshot.")] = False,
    work: Annotated[Path, typer.Option(help="Rendered scenes, snapshots and the log.")] = Path(".osprey/train-sam"),
    scenes: Annotated[int, typer.Option(help="How many different scenes to draw.")] = 8000,
    seed: Annotated[int, typer.Option(help="Same seed, same scenes, prompts and first weights.")] = 0,
    threads: Annotated[int, typer.Option(help="CPU threads; rendering takes another core.")] = 1,
) -> None:
    """Train sam-nano on procedural scenes; uses CUDA when present."""
    torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    console = Console()
    trainer = Trainer(TrainSettings(out=out, work=work, minutes=minutes, num_scenes=scenes, seed=seed), device)
    if resume and not trainer.resume():
        console.print(f"nothing to resume in {work}: expected state.pt there; starting from the first step")
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("training sam-nano", total=1.0)

        def show(trainer: Trainer) -> None:
            smooth = trainer.smooth
            text = f"step {trainer.steps} IoU object {smooth['object_iou']:.3f} part {smooth['part_iou']:.3f}"
            progress.update(task, completed=trainer.progress, description=text)

        trainer.run(show)
    console.print((work / "log.jsonl").read_text(encoding="utf-8").splitlines()[-1])


if __name__ == "__main__":
    typer.run(main)
