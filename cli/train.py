"""`osprey train`: train one stage of the paper, or a LoRA adapter, on the devices of this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.screen import failures

if TYPE_CHECKING:
    from osprey_model.training.run import TrainingResult


def train(
    stage: Annotated[str, typer.Option(help="Stage: 1 (captions), 2 (regions), 3 (all but the vision tower) or lora.")],
    model: Annotated[Path, typer.Option(help="Checkpoint folder to start from.")],
    data: Annotated[
        Path, typer.Option(help="Data config: JSON list of entries with type, ann_file, img_prefix, optionally weight.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the result: a checkpoint, or with lora an adapter.")],
    held_out: Annotated[
        Path | None, typer.Option(help="Data config to evaluate on. The best weights are kept.")
    ] = None,
    patience: Annotated[int | None, typer.Option(help="Stop after this many evaluations without improvement.")] = None,
    eval_steps: Annotated[int | None, typer.Option(help="Steps between two evaluations. Default: one epoch.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the data. Default: the stage's.")] = None,
    max_steps: Annotated[int | None, typer.Option(help="Stop after this many optimizer steps.")] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Learning rate after the warm-up. Default: the stage's.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Samples per step, all devices together. Default: the stage's.")
    ] = None,
    device_batch_size: Annotated[
        int | None, typer.Option(help="Samples that fit a device at once; gradients of the rest are accumulated.")
    ] = None,
    lora_rank: Annotated[int | None, typer.Option(help="Rank of the LoRA matrices. Default: 64.")] = None,
    lora_alpha: Annotated[int | None, typer.Option(help="Scale of the LoRA matrices. Default: 16.")] = None,
    lora_dropout: Annotated[float | None, typer.Option(help="Dropout of the LoRA matrices. Default: 0.05.")] = None,
    lora_vocabulary: Annotated[
        bool | None, typer.Option(help="Adapt the embedding table and the head too, for words that the model lacks.")
    ] = None,
    lora_whole_rate: Annotated[
        float | None,
        typer.Option(
            help="Learning rate of projector and mask extractor, as a fraction of the LoRA rate. Default: 0.1."
        ),
    ] = None,
    save_steps: Annotated[int | None, typer.Option(help="Steps between two checkpoints. Default: one epoch.")] = None,
    keep_checkpoints: Annotated[int, typer.Option(help="Number of checkpoints to keep, besides the best one.")] = 2,
    log_steps: Annotated[int, typer.Option(help="Steps between two points of the loss curve.")] = 10,
    seed: Annotated[int, typer.Option(help="Random seed for data order, questions, new weights and dropout.")] = 0,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave bad entries out and list them in result.json.")
    ] = False,
    check_data: Annotated[bool, typer.Option(help="Check every entry before training.")] = True,
    bf16: Annotated[bool | None, typer.Option(help="Compute in bfloat16. Default: on a GPU.")] = None,
    gradient_checkpointing: Annotated[bool, typer.Option(help="Use less memory and more time.")] = False,
    cache_gb: Annotated[float, typer.Option(help="Gigabytes of memory for the vision tower's features of images.")] = 0,
    workers: Annotated[int, typer.Option(help="Number of processes that load data.")] = 0,
    cpu: Annotated[bool, typer.Option("--cpu", help="Use the CPU even if a GPU is available.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue from the newest complete checkpoint in OUT.")
    ] = False,
    exact: Annotated[
        bool,
        typer.Option(
            "--exact", help="With --resume: refuse to continue unless the result stays the same to the last bit."
        ),
    ] = False,
) -> None:
    """Train a stage of the paper, or a LoRA adapter. TensorBoard logs are in OUT/runs.

    On several GPUs: accelerate launch --config_file CONFIG -m cli.main train ...
    """
    given = dict(locals())  # options and fields of a run have the same names
    from dataclasses import fields

    from accelerate import PartialState

    from osprey_model.training.run import TrainingRun
    from osprey_model.training.stages import LoraOptions
    from osprey_model.training.train import train as run_training

    lora = {
        field.name: given[f"lora_{field.name}"]
        for field in fields(LoraOptions)
        if given.get(f"lora_{field.name}") is not None
    }
    same = {field.name: given[field.name] for field in fields(TrainingRun) if field.name in given}
    with failures("Not trained"):
        result = run_training(
            TrainingRun(
                **same,
                lora=LoraOptions(**lora) if lora else None,
                on_error="skip" if skip_bad else "raise",
                cache_bytes=int(cache_gb * 2**30),
                device="cpu" if cpu else "auto",
            )
        )
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
