"""LoRA by PEFT: the wrapped model that trains, and its adapter folder.

`osprey_model/weights/adapter.py` reads the folder for serving; the options stand in the table of `stages.py`.
"""

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
    """Fresh LoRA matrices beside the decoder's linear layers; projector and mask extractor train as whole copies.

    The first matrices are drawn from torch's global generator.
    """
    # By full name: the tower has layers of its own that must stay as they are.
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
    """Put an adapter folder's values in the place of the fresh ones.

    Raises:
        AdapterMismatch: it was trained with other options, or on a model of other sizes.
        FileNotFoundError: a file of it is missing.
    """
    state = read_adapter(folder)
    wanted = get_peft_model_state_dict(model, save_embedding_layers=False)
    try:
        check_complete(wanted, state, source=str(folder))
    except CheckpointError as error:
        raise AdapterMismatch(f"training cannot begin with the adapter {folder}: {error} of the adapter") from error
    set_peft_model_state_dict(model, state)


def save_adapter(model: PeftModel, folder: Path | str, *, base: Path | str, state: Mapping[str, Tensor]) -> None:
    """Write the adapter folder; `state` holds the trained parameters under the wrapped model's names."""
    model.save_pretrained(str(folder), state_dict=dict(state), save_embedding_layers=False)
    write_base(folder, base)
