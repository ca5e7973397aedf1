"""transformers' Trainer, told what is Osprey's: weighted tokens, a held-out mean per token, whole checkpoints.

A checkpoint holds the trained parameters only (the rest is the start checkpoint's), as safetensors. Optimizer,
schedule and random states are the Trainer's own files, which it reads with `weights_only`; its pickled
`training_args.bin` is not written. Neighbours: `train.py` builds it, `checkpoints.py` says which checkpoint is whole.
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
OnStep = Callable[[int, int], None]  # (steps done, steps in all)


class LogAtCheckpoints(TrainerCallback):  # type: ignore[misc] # transformers is untyped here
    """A point of the loss curve at every checkpoint, so that a continued run has the same points."""

    def on_step_end(
        self, _args: TrainingArguments, _state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Log whenever a checkpoint is due."""
        control.should_log = control.should_log or control.should_save
        return control

    def on_epoch_end(
        self, _args: TrainingArguments, _state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """The same at the end of an epoch."""
        control.should_log = control.should_log or control.should_save
        return control


class ProgressCallback(TrainerCallback):  # type: ignore[misc] # transformers is untyped here
    """Tells a caller how far the run is."""

    def __init__(self, on_step: OnStep) -> None:
        self._on_step = on_step

    def on_step_end(
        self, _args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Report the step."""
        self._on_step(state.global_step, state.max_steps)
        return control


class OspreyTrainer(Trainer):  # type: ignore[misc] # transformers is untyped here
    """See the module.

    `trained` are the names `freeze_for` gave, `keep` the number of checkpoints kept, `whole_rate` the rate of what PEFT
    trains whole beside its matrices, as a share of theirs.
    """

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
        super().__init__(**arguments, callbacks=[LogAtCheckpoints(), *callbacks])
        self._trained, self._keep, self._whole_rate = frozenset(trained), keep, whole_rate

    def trained_state(self, state: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """The trained parameters on the CPU by name; `state` is a gathered state dict of a sharded model.

        Raises:
            CheckpointError: a gathered state without some of them, in the process that writes it.
        """
        if state is None:
            state = dict(self.accelerator.unwrap_model(self.model).named_parameters())
        if self.args.should_save:
            lost = sorted(self._trained - state.keys())
            raise_problems({"missing": lost}, source="what the processes gathered")
        return {k: v.detach().cpu().contiguous() for k, v in state.items() if k in self._trained}

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The Trainer's; parameters that train whole beside LoRA's matrices are groups with a rate of their own."""
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
        """Weighted learned tokens over all accumulated batches and devices: what the loss is divided by."""
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
        """The (weighted) mean loss per learned token of the held-out data, whatever its batches are."""
        model = self.model_wrapped
        model.eval()
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
        """Write, seal, then remove the oldest: at any moment there is a whole one."""
        folder = checkpoint_folder(Path(self.args.output_dir), self.state.global_step)
        if self.args.should_save and folder.exists():
            shutil.rmtree(folder)  # of a run that was killed here
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
        """Raises CheckpointError where the file does not hold exactly the trained parameters."""
        state = load_file(folder / TRAINED_FILE)
        parameters = dict(self.accelerator.unwrap_model(self.model).named_parameters())
        check_complete({k: parameters[k] for k in self._trained}, state, source=str(folder / TRAINED_FILE))
        with torch.no_grad():
            for name, value in state.items():
                parameters[name].copy_(value)


def _weighted_tokens(batch: Mapping[str, Any]) -> Tensor:
    """The first position predicts nothing, so its label does not count."""
    learned_BL = batch["labels"][:, 1:] != IGNORE_INDEX
    total: Tensor = (learned_BL * batch["loss_weights"][:, 1:]).sum()
    return total
