"""A subclass of transformers' Trainer with weighted tokens, held-out loss per token, and complete checkpoints.

A checkpoint contains only the trained parameters, as safetensors; all others are those of the start checkpoint. The
Trainer writes optimizer, schedule and random states into files of its own, and reads them with `weights_only`. Its
pickled `training_args.bin` is not written.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import EvalLoopOutput

from osprey_model.config import IGNORE_INDEX
from osprey_model.modeling.weight_names import check_complete, raise_problems
from osprey_model.training.checkpoints import checkpoint_folder, prune, seal
from osprey_model.training.conditions import Conditions
from osprey_model.training.stages import is_whole_copy

TRAINED_FILE = "trained.safetensors"
OnStep = Callable[[int, int], None]  # (steps done, steps planned)


class LogAtCheckpoints(TrainerCallback):  # type: ignore[misc] # transformers is untyped here
    """Adds a point to the loss curve at every checkpoint, so that a continued run has the same points."""

    def on_step_end(
        self, _args: TrainingArguments, _state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Log if a checkpoint is due after this step."""
        control.should_log = control.should_log or control.should_save
        return control

    def on_epoch_end(
        self, _args: TrainingArguments, _state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Log if a checkpoint is due at the end of the epoch."""
        control.should_log = control.should_log or control.should_save
        return control


class ProgressCallback(TrainerCallback):  # type: ignore[misc] # transformers is untyped here
    """Reports every optimizer step to the caller."""

    def __init__(self, on_step: OnStep) -> None:
        self._on_step = on_step

    def on_step_end(
        self, _args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Call `on_step` with the number of steps done and planned."""
        self._on_step(state.global_step, state.max_steps)
        return control


class OspreyTrainer(Trainer):  # type: ignore[misc] # transformers is untyped here
    """transformers' Trainer for Osprey; the module's docstring says what differs."""

    control: TrainerControl

    def __init__(
        self,
        *,
        trained: Sequence[str],
        keep: int,
        callbacks: Sequence[TrainerCallback],
        whole_rate: float = 1.0,
        **arguments: Any,
    ) -> None:
        """Create a trainer.

        Args:
            trained: names of the trained parameters, from `freeze_for`.
            keep: number of newest checkpoints to keep.
            callbacks: further callbacks.
            whole_rate: learning rate of the modules that PEFT trains whole, as a fraction of the LoRA rate.
            arguments: the remaining arguments of transformers' Trainer.
        """
        super().__init__(**arguments, callbacks=[LogAtCheckpoints(), *callbacks])
        self._trained, self._keep, self._whole_rate = frozenset(trained), keep, whole_rate

    def trained_state(self, state: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Return the trained parameters by name, on the CPU.

        Args:
            state: the gathered state dict of a sharded model; None: take the parameters from the model.

        Raises:
            CheckpointError: `state` lacks trained parameters, in the process that writes files.
        """
        if state is None:
            state = dict(self.accelerator.unwrap_model(self.model).named_parameters())
        if self.args.should_save:
            lost = sorted(self._trained - state.keys())
            raise_problems({"missing": lost}, source="the state gathered from all processes")
        return {k: v.detach().cpu().contiguous() for k, v in state.items() if k in self._trained}

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Create the Trainer's optimizer, and give modules that PEFT trains whole their own learning rate.

        Each parameter group is split in two: LoRA matrices keep its rate, whole modules get `whole_rate` times it.
        """
        is_made = self.optimizer is not None
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        if is_made:
            return optimizer
        named = (self.model if model is None else model).named_parameters()
        whole = {id(parameter) for name, parameter in named if is_whole_copy(name)}
        groups = []
        for group in optimizer.param_groups:
            for own, share in ((False, 1.0), (True, self._whole_rate)):
                params = [each for each in group["params"] if (id(each) in whole) is own]
                if params:
                    groups.append({**group, "params": params, "lr": group["lr"] * share})
        optimizer.param_groups[:] = groups
        return optimizer

    # --- loss -----------------------------------------------------------------------------------------------------

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Tensor | None:
        """Return the divisor of the loss: the weighted learned tokens of all accumulated batches on all devices."""
        if not batch_samples:
            return None
        total = torch.stack([_weighted_tokens(batch) for batch in batch_samples]).sum().to(device)
        if self.args.world_size > 1:
            total = self.accelerator.gather(total).sum()
        return total

    def evaluation_loop(
        self,
        dataloader: DataLoader[Any],
        description: str,  # noqa: ARG002 # the Trainer calls it with these
        prediction_loss_only: bool | None = None,  # noqa: ARG002
        ignore_keys: list[str] | None = None,  # noqa: ARG002
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Compute the weighted mean loss per learned token of the held-out data; it does not depend on the batches."""
        model = self.model_wrapped
        model.eval()
        # Sum of the loss and sum of the token weights; their quotient is the mean over all batches and devices.
        sums = torch.zeros(2, device=self.args.device, dtype=torch.float64)
        num_samples = 0
        for batch in dataloader:
            inputs = self._prepare_inputs(batch)
            tokens = _weighted_tokens(inputs)
            with torch.no_grad(), self.compute_loss_context_manager():
                loss = model(**inputs, num_items_in_batch=tokens).loss
            sums += torch.stack([loss.detach().double() * tokens, tokens.double()]).to(sums.device)
            num_samples += len(inputs["input_ids"])
            self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        if self.args.world_size > 1:
            sums = self.accelerator.gather(sums[None]).sum(dim=0)
        metrics = {f"{metric_key_prefix}_loss": (sums[0] / sums[1]).item()}
        return EvalLoopOutput(predictions=None, label_ids=None, metrics=metrics, num_samples=num_samples)

    # --- checkpoints ----------------------------------------------------------------------------------------------

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write and seal a checkpoint, then remove old ones, so that there is a complete one at any moment."""
        folder = checkpoint_folder(Path(self.args.output_dir), self.state.global_step)
        if self.args.should_save and folder.exists():
            shutil.rmtree(folder)  # incomplete: the run was killed while it wrote this checkpoint
        self.accelerator.wait_for_everyone()
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            Conditions.now(self.args).write(folder)
            seal(folder)
            best = self.state.best_model_checkpoint
            prune(folder.parent, keep=self._keep, best=None if best is None else Path(best))
        self.accelerator.wait_for_everyone()

    def _save(self, output_dir: str | None = None, state_dict: Mapping[str, Tensor] | None = None) -> None:
        folder = Path(output_dir or self.args.output_dir)
        state = self.trained_state(state_dict)
        if self.args.should_save:
            folder.mkdir(parents=True, exist_ok=True)
            save_file(state, folder / TRAINED_FILE, metadata={"format": "pt"})

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        self._load_trained(Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            super()._load_best_model()
            return
        self._load_trained(Path(self.state.best_model_checkpoint))

    def _load_trained(self, folder: Path) -> None:
        """Load the trained parameters of a checkpoint.

        Raises:
            CheckpointError: the file does not contain exactly the trained parameters.
        """
        state = load_file(folder / TRAINED_FILE)
        parameters = dict(self.accelerator.unwrap_model(self.model).named_parameters())
        check_complete({k: parameters[k] for k in self._trained}, state, source=str(folder / TRAINED_FILE))
        with torch.no_grad():
            for name, value in state.items():
                parameters[name].copy_(value)


def _weighted_tokens(batch: Mapping[str, Any]) -> Tensor:
    """Sum the loss weights of all learned tokens. The first label is left out, because no logit predicts it."""
    learned_BL = batch["labels"][:, 1:] != IGNORE_INDEX
    total: Tensor = (learned_BL * batch["loss_weights"][:, 1:]).sum()
    return total
