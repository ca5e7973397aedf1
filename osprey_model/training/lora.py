"""LoRA with PEFT: wrap a model for training, continue from an adapter folder, and save one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from peft import LoraConfig, PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor

from osprey_model.modeling.osprey import OspreyForCausalLM
from osprey_model.modeling.weight_names import CheckpointError, check_complete
from osprey_model.training.stages import LoraOptions
from osprey_model.weights.adapter import AdapterMismatch, read_adapter, wrap_in_peft, write_base


def add_adapter(model: OspreyForCausalLM, options: LoraOptions, *, base: Path | str) -> PeftModel:
    """Add new LoRA matrices to the decoder's linear layers; projector and mask extractor are trained whole.

    The matrices A are drawn from torch's global generator.
    """
    # By full name, because the tower has linear layers too, which must not be adapted.
    targets = [rf"model\.layers\.\d+\.(self_attn|mlp)\.({'|'.join(options.layers)})"]
    if options.vocabulary:
        targets += [r"model\.embed_tokens", "lm_head"]
    config = LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,
        lora_dropout=options.dropout,
        target_modules="|".join(targets),
        modules_to_save=["mm_projector", "mask_extractor"],
        base_model_name_or_path=str(base),
    )
    return wrap_in_peft(model, config)


def continue_adapter(model: PeftModel, folder: Path | str) -> None:
    """Replace the new LoRA matrices by those of an adapter folder.

    Raises:
        AdapterMismatch: the adapter was trained with other options, or on a model of other sizes.
        FileNotFoundError: a file of the folder is missing.
    """
    state = read_adapter(folder)
    wanted = get_peft_model_state_dict(model, save_embedding_layers=False)
    try:
        check_complete(wanted, state, source=str(folder))
    except CheckpointError as error:
        raise AdapterMismatch(f"training cannot begin with the adapter {folder}: {error} of the adapter") from error
    set_peft_model_state_dict(model, state)


def save_adapter(model: PeftModel, folder: Path | str, *, base: Path | str, state: Mapping[str, Tensor]) -> None:
    """Write an adapter folder.

    Args:
        model: the wrapped model.
        folder: the adapter folder.
        base: checkpoint folder that the adapter was trained on.
        state: the trained parameters under the wrapped model's names.
    """
    model.save_pretrained(str(folder), state_dict=dict(state), save_embedding_layers=False)
    write_base(folder, base)
