"""`osprey train`: one stage of the table, on this machine's devices."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

if TYPE_CHECKING:
    from osprey_model.training.run import TrainingResult
    from osprey_model.training.stages import StageName


def train(
    stage: Annotated[str, typer.Option(help="1 (captions), 2 (regions), 3 (everything but the tower) or lora.")],
    model: Annotated[Path, typer.Option(help="Checkpoint folder to start from.")],
    data: Annotated[Path, typer.Option(help="Data config: JSON list of type, ann_file, img_prefix, perhaps weight.")],
    out: Annotated[Path, typer.Option(help="Result and checkpoints; a checkpoint folder, for lora an adapter folder.")],
    held_out: Annotated[
        Path | None, typer.Option(help="Data config to evaluate on; the best weights are kept.")
    ] = None,
    patience: Annotated[int | None, typer.Option(help="Stop after so many evaluations without a better one.")] = None,
    eval_steps: Annotated[int | None, typer.Option(help="Evaluate every so many steps; default: every epoch.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Default: the stage's.")] = None,
    max_steps: Annotated[int | None, typer.Option(help="Stop after so many optimizer steps.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Default: the stage's.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Over all devices. Default: the stage's.")] = None,
    device_batch_size: Annotated[int | None, typer.Option(help="What a device holds; the rest is accumulated.")] = None,
    lora_rank: Annotated[int | None, typer.Option(help="Default 64.")] = None,
    lora_alpha: Annotated[int | None, typer.Option(help="Default 16.")] = None,
    lora_dropout: Annotated[float | None, typer.Option(help="Default 0.05.")] = None,
    lora_vocabulary: Annotated[
        bool | None, typer.Option(help="Adapt embedding table and head too, for words that are new to the model.")
    ] = None,
    lora_whole_rate: Annotated[
        float | None, typer.Option(help="Rate of projector and mask extractor by that of the matrices. Default 0.1.")
    ] = None,
    save_steps: Annotated[
        int | None, typer.Option(help="Checkpoint every so many steps; default: every epoch.")
    ] = None,
    keep_checkpoints: Annotated[int, typer.Option(help="The newest so many; the best one is always kept.")] = 2,
    log_steps: Annotated[int, typer.Option(help="A point of the loss curve every so many steps.")] = 10,
    seed: Annotated[int, typer.Option(help="Of data order, drawn questions, fresh weights and dropout.")] = 0,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave bad entries out and report them.")] = False,
    check_data: Annotated[bool, typer.Option(help="Look at every entry before training.")] = True,
    bf16: Annotated[bool | None, typer.Option(help="Compute in bfloat16; default: on a GPU.")] = None,
    gradient_checkpointing: Annotated[bool, typer.Option(help="Less memory, slower.")] = False,
    cache_gb: Annotated[float, typer.Option(help="Keep the tower's features of images in so much memory.")] = 0,
    workers: Annotated[int, typer.Option(help="Loader processes.")] = 0,
    cpu: Annotated[bool, typer.Option("--cpu", help="Leave GPUs alone.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the newest whole checkpoint in OUT.")] = False,
) -> None:
    """Train a stage of the paper, or a LoRA adapter; TensorBoard logs are in OUT/runs.

    On several GPUs: accelerate launch --config_file CONFIG -m cli.main train ...
    """
    from accelerate import PartialState
    from rich.console import Console
    from rich.markup import escape

    from osprey_model.training.run import TrainingRun
    from osprey_model.training.stages import LoraOptions
    from osprey_model.training.train import train as run_training

    errors = Console(stderr=True)
    given = {
        "rank": lora_rank,
        "alpha": lora_alpha,
        "dropout": lora_dropout,
        "vocabulary": lora_vocabulary,
        "whole_rate": lora_whole_rate,
    }
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    try:
        result = run_training(
            TrainingRun(
                stage=cast("StageName", stage),  # the run refuses an unknown one
                model=model,
                data=data,
                out=out,
                held_out=held_out,
                epochs=epochs,
                max_steps=max_steps,
                learning_rate=learning_rate,
                batch_size=batch_size,
                device_batch_size=device_batch_size,
                lora=LoraOptions(**options) if options else None,
                eval_steps=eval_steps,
                patience=patience,
                save_steps=save_steps,
                keep_checkpoints=keep_checkpoints,
                log_steps=log_steps,
                seed=seed,
                on_error="skip" if skip_bad else "raise",
                check_data=check_data,
                bf16=bf16,
                gradient_checkpointing=gradient_checkpointing,
                cache_bytes=int(cache_gb * 2**30),
                workers=workers,
                device="cpu" if cpu else "auto",
                resume=resume,
            )
        )
    except (OSError, ValueError) as error:
        errors.print(f"[red]Not trained:[/red] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(1) from error
    if PartialState().is_main_process:
        _report(result)


def _report(result: TrainingResult) -> None:
    from rich.console import Console
    from rich.markup import escape

    console = Console()
    loss = f"loss {result.final_loss:.4f}"
    if result.best_held_out_loss is not None:
        loss += f", held out {result.best_held_out_loss:.4f}"
    early = ", stopped early" if result.stopped_early else ""
    console.print(
        f"{result.steps} steps on {result.num_samples} samples{early}: {loss}; {result.steps_per_s:.2f} steps/s",
        soft_wrap=True,
    )
    if result.bad_entries or result.num_replaced:
        console.print(
            f"[yellow]{len(result.bad_entries)} bad entries left out, {result.num_replaced} bad samples "
            "replaced[/yellow], see result.json",
            soft_wrap=True,
        )
    console.print(escape(str(result.out)), soft_wrap=True)
