"""Train the small SAM of the demo: `python -m demo.training.sam --out demo/checkpoints/sam-nano --minutes 75`.

Scenes are rendered in the background during training. `--resume` continues a stopped run. The README beside the
checkpoint describes the model.
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
    out: Annotated[Path, typer.Option(help="Folder to write config.json and model.safetensors to.")],
    minutes: Annotated[float, typer.Option(help="Minutes of wall time to train for.")] = 75.0,
    resume: Annotated[bool, typer.Option(help="Continue from the work folder's last snapshot.")] = False,
    work: Annotated[Path, typer.Option(help="For rendered scenes, snapshots and the log.")] = Path(".osprey/train-sam"),
    scenes: Annotated[int, typer.Option(help="Number of different scenes to draw.")] = 8000,
    seed: Annotated[int, typer.Option(help="Random seed for prompts and initial weights.")] = 0,
    threads: Annotated[int, typer.Option(help="CPU threads for training; rendering uses one more core.")] = 1,
) -> None:
    """Train sam-nano on drawn scenes; uses CUDA if it is available."""
    torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    console = Console()
    trainer = Trainer(TrainSettings(out=out, work=work, minutes=minutes, num_scenes=scenes, seed=seed), device)
    if resume and not trainer.resume():
        console.print(f"There is no state.pt to resume from in {work}. Training starts from the first step.")
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
