"""Run one training stage: from a checkpoint folder to a new checkpoint folder or an adapter folder.

The same call runs on one device or, started by `accelerate launch`, on several (DDP, FSDP or DeepSpeed, configured by
the files in `osprey_model/training/accelerate/`).
"""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from accelerate.utils import parse_flag_from_env
from peft import PeftModel
from torch import Tensor
from transformers import EarlyStoppingCallback, PrinterCallback, TrainingArguments, set_seed

from osprey_model.data.mixture import MixtureDataset
from osprey_model.data.records import PixelReader, ReadImage
from osprey_model.inputs.preprocess import ImagePreprocessor
from osprey_model.inputs.tokenizer import JSON_FILE, TOKENIZER_FILES, OspreyTokenizer
from osprey_model.modeling.osprey import OspreyForCausalLM
from osprey_model.training.checkpoints import newest, remove_incomplete
from osprey_model.training.conditions import continued
from osprey_model.training.data import Collator, bad_entries, open_data
from osprey_model.training.feature_cache import FeatureCache
from osprey_model.training.lora import add_adapter, continue_adapter, save_adapter
from osprey_model.training.run import TrainingResult, TrainingRun
from osprey_model.training.stages import freeze_for, part_of
from osprey_model.training.trainer import OnStep, OspreyTrainer, ProgressCallback
from osprey_model.weights.build import load_osprey
from osprey_model.weights.checkpoint import save_checkpoint

logger = logging.getLogger(__name__)

_GENERATION_FILE = "generation_config.json"


def train(run: TrainingRun, on_step: OnStep | None = None) -> TrainingResult:
    """Run a stage. With `run.resume`, continue from the newest complete checkpoint in the output folder, if any.

    Args:
        run: the options.
        on_step: called as (steps done, steps planned) after every optimizer step.

    Raises:
        RunExists: the output folder contains checkpoints, and `run.resume` is off.
        RunDiffers: the output folder contains a run with other settings.
        NotExact: `run.exact` is on, and the continuation might compute other numbers.
        BadEntry: an entry of the data is bad, with `on_error="raise"`; the message has file and index.
        CheckpointError: the weights of the start checkpoint do not fit its config.
        ValueError: the batch cannot be divided evenly among the devices.
    """
    arguments = _arguments(run)
    with arguments.main_process_first(desc="checking the output folder"):
        resume_from = newest(run.out)
        if arguments.should_save:
            run.begin(has_checkpoint=resume_from is not None)
            remove_incomplete(run.out)
    with continued(resume_from, arguments, exact=run.exact):
        return _train(run, arguments, resume_from, on_step)


def _train(
    run: TrainingRun, arguments: TrainingArguments, resume_from: Path | None, on_step: OnStep | None
) -> TrainingResult:
    """Load, train and save; `train` has checked the output folder and set the thread count."""
    row = run.row
    set_seed(run.seed)
    # Read from the launcher's settings, because the Trainer that knows it needs the model first.
    sharded = parse_flag_from_env("ACCELERATE_USE_FSDP") or arguments.deepspeed_plugin is not None
    # Load frozen weights in bfloat16, so that they are never in memory in float32. FSDP and DeepSpeed need one dtype
    # for all weights, so sharded runs load everything in float32.
    halved = arguments.bf16 and not sharded
    model = load_osprey(
        run.model,
        dtype=torch.bfloat16 if halved else torch.float32,
        in_float32=lambda name: part_of(name) in row.trains,
    )
    core = model
    if row.lora is not None:
        model = add_adapter(model, row.lora, base=run.model)
        if run.adapter is not None:
            continue_adapter(model, run.adapter)
    trained = freeze_for(model, row)
    if run.gradient_checkpointing:
        _checkpoint_activations(core)
    tokenizer = OspreyTokenizer.from_folder(run.model)
    read_image = _image_reader(run, core, arguments)
    data, held_out = _open_data(run, core, tokenizer, read_image)
    arguments.ddp_find_unused_parameters = _has_unused_parameters(data, run)
    trainer = OspreyTrainer(
        model=model,
        args=arguments,
        train_dataset=data,
        eval_dataset=held_out,
        data_collator=Collator(tokenizer.pad_token_id),
        trained=trained,
        keep=run.keep_checkpoints,
        whole_rate=1.0 if row.lora is None else row.lora.whole_rate,
        callbacks=[
            *([] if run.patience is None else [EarlyStoppingCallback(run.patience)]),
            *([] if on_step is None else [ProgressCallback(on_step)]),
        ],
    )
    if not run.progress:  # else the Trainer would print every point of the loss curve
        trainer.remove_callback(PrinterCallback)
    output = trainer.train(resume_from_checkpoint=None if resume_from is None else str(resume_from))
    _save_result(trainer, run, tokenizer)
    return _result(trainer, run, output.metrics, data, held_out)


def _arguments(run: TrainingRun) -> TrainingArguments:
    """Translate the options of a run into those of transformers' Trainer.

    Raises:
        ValueError: the batch cannot be divided evenly among the devices.
    """
    row = run.row
    bf16 = run.bf16 if run.bf16 is not None else run.device != "cpu" and torch.cuda.is_available()
    arguments = TrainingArguments(
        output_dir=str(run.out),
        use_cpu=run.device == "cpu",
        seed=run.seed,
        data_seed=run.seed,
        bf16=bf16,
        num_train_epochs=row.epochs,
        max_steps=-1 if run.max_steps is None else run.max_steps,
        learning_rate=row.learning_rate,
        lr_scheduler_type=row.schedule,
        warmup_steps=row.warmup_ratio,  # a value below 1 is a fraction of all steps
        weight_decay=row.weight_decay,
        adam_beta1=row.adam_betas[0],
        adam_beta2=row.adam_betas[1],
        adam_epsilon=row.adam_epsilon,
        optim="adamw_torch",
        max_grad_norm=row.max_grad_norm,
        logging_strategy="steps",
        logging_steps=run.log_steps,
        logging_nan_inf_filter=False,  # a loss that is NaN or infinite must be visible in the curve
        **_save_and_eval_steps(run),
        save_total_limit=None,  # `prune` removes old checkpoints, once the new one is complete
        restore_callback_states_from_checkpoint=True,
        dataloader_num_workers=run.workers,
        dataloader_pin_memory=run.device != "cpu" and torch.cuda.is_available(),
        remove_unused_columns=False,
        label_names=["labels"],
        report_to=["tensorboard"],
        disable_tqdm=not run.progress,
    )
    if arguments.n_gpu > 1:
        # In one process the Trainer would use DataParallel, which multiplies the batch size by the number of GPUs.
        arguments._n_gpu = 1
        logger.warning("training uses only one of the GPUs; to use all, see `accelerate launch` in docs/model/train.md")
    share = row.batch_size // arguments.world_size
    held = run.device_batch_size or share
    if not share or share * arguments.world_size != row.batch_size or share % held:
        raise ValueError(
            f"a batch of {row.batch_size} samples cannot be divided among {arguments.world_size} devices with {held} "
            "samples at a time; choose a batch_size that is a multiple of device_batch_size times the number of devices"
        )
    arguments.per_device_train_batch_size = arguments.per_device_eval_batch_size = held
    arguments.gradient_accumulation_steps = share // held
    return arguments


def _save_and_eval_steps(run: TrainingRun) -> dict[str, Any]:
    """Return the Trainer's options for when to write checkpoints and when to evaluate.

    With held-out data the result is the checkpoint with the lowest held-out loss, so every evaluation writes one.
    """
    steps = run.save_steps if run.held_out is None else run.eval_steps
    strategy = {"save_strategy": "epoch" if steps is None else "steps", "save_steps": steps or 500}
    if run.held_out is None:
        return strategy
    return {
        **strategy,
        "eval_strategy": strategy["save_strategy"],
        "eval_steps": strategy["save_steps"],
        "load_best_model_at_end": True,
        "metric_for_best_model": "loss",
        "greater_is_better": False,
    }


def _image_reader(run: TrainingRun, model: OspreyForCausalLM, arguments: TrainingArguments) -> ReadImage:
    """Return a reader that gives the tower's cached features of an image, or its pixels if the run has no cache."""
    preprocess = ImagePreprocessor(model.sizes.image_size)
    if not run.cache_bytes:
        return PixelReader(preprocess)
    dtype = torch.bfloat16 if arguments.bf16 else torch.float32
    return FeatureCache(model.model.vision_tower, preprocess, max_bytes=run.cache_bytes, dtype=dtype)


def _open_data(
    run: TrainingRun, model: OspreyForCausalLM, tokenizer: OspreyTokenizer, read_image: ReadImage
) -> tuple[MixtureDataset, MixtureDataset | None]:
    """Open the training data, and the held-out data if there are any."""

    def opened(config: Path) -> MixtureDataset:
        return open_data(
            config,
            tokenizer=tokenizer,
            sizes=model.sizes,
            template=run.row.template,
            read_image=read_image,
            seed=run.seed,
            on_error=run.on_error,
            check=run.check_data,
        )

    return opened(run.data), None if run.held_out is None else opened(run.held_out)


def _has_unused_parameters(data: MixtureDataset, run: TrainingRun) -> bool:
    """Return whether a batch may give the mask extractor no gradient, which happens if it has only whole images.

    DDP then needs `find_unused_parameters`.
    """
    whole_images = any(source.file.type == "llava" for source in data.sources)
    return whole_images and "mask_extractor" in run.row.trains


def _checkpoint_activations(model: OspreyForCausalLM) -> None:
    """Turn gradient checkpointing on."""
    options = {"use_reentrant": False}
    if hasattr(model, "activation_checkpointing_enable"):  # its name since transformers 5.20
        model.activation_checkpointing_enable(activation_checkpointing_kwargs=options)
    else:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)


def _save_result(trainer: OspreyTrainer, run: TrainingRun, tokenizer: OspreyTokenizer) -> None:
    """Write the trained weights into `run.out`, as an adapter folder or as a complete checkpoint folder."""
    gathered: Mapping[str, Tensor] | None = None
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        gathered = trainer.accelerator.get_state_dict(trainer.model_wrapped)  # collective: every process has to call it
    if not trainer.args.should_save:
        return
    state = trainer.trained_state(gathered)
    if run.row.lora is not None:
        save_adapter(
            cast(PeftModel, trainer.accelerator.unwrap_model(trainer.model)), run.out, base=run.model, state=state
        )
        return
    plain = load_osprey(run.model, dtype=torch.bfloat16 if trainer.args.bf16 else torch.float32)
    plain.load_state_dict(state, strict=False)  # not strict: `state` has only trained weights, all of them
    save_checkpoint(plain, run.out)
    tokenizer.save_json(run.out / JSON_FILE)
    for name in (*TOKENIZER_FILES, _GENERATION_FILE):
        if (run.model / name).is_file():
            shutil.copyfile(run.model / name, run.out / name)


def _result(
    trainer: OspreyTrainer,
    run: TrainingRun,
    metrics: Mapping[str, float],
    data: MixtureDataset,
    held_out: MixtureDataset | None,
) -> TrainingResult:
    """Collect the result of a run, write it as JSON, and log how many entries were bad."""
    history: list[dict[str, Any]] = trainer.state.log_history
    losses = tuple((entry["step"], entry["loss"]) for entry in history if "loss" in entry)
    evaluations = tuple((entry["step"], entry["eval_loss"]) for entry in history if "eval_loss" in entry)
    replaced = [problem for dataset in (data, held_out) if dataset is not None for problem in dataset.replaced()]
    bad = (*bad_entries(data), *bad_entries(held_out))
    planned = trainer.state.max_steps
    result = TrainingResult(
        out=run.out,
        steps=trainer.state.global_step,
        final_loss=losses[-1][1] if losses else math.nan,
        losses=losses,
        held_out_losses=evaluations,
        best_held_out_loss=min((loss for _, loss in evaluations), default=None),
        stopped_early=trainer.state.global_step < planned,
        num_samples=len(data),
        bad_entries=tuple(str(problem) for problem in bad),
        replaced_entries=tuple(str(problem) for problem in replaced),
        num_replaced=len(replaced),
        seconds=metrics["train_runtime"],
        steps_per_s=metrics["train_steps_per_second"],
    )
    if trainer.args.should_save:
        result.write()
    if bad or replaced:
        logger.warning(
            "%d bad entries were left out and %d bad samples were replaced; result.json lists them as bad_entries and "
            "replaced_entries",
            len(bad),
            result.num_replaced,
        )
    return result
