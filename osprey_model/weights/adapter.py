"""Adapter folders in PEFT's format: LoRA matrices of the decoder, and the whole projector and mask extractor.

A folder holds `adapter_config.json` and `adapter_model.safetensors`, which PEFT can read. For serving, an adapter is
merged into the base model's weights, so answers take the same time as without one.
"""

from __future__ import annotations

import hashlib
import json
import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, cast

from safetensors.torch import load_file
from torch import Tensor

from osprey_model.modeling.osprey import OspreyForCausalLM
from osprey_model.modeling.weight_names import CheckpointError, check_complete
from osprey_model.weights.checkpoint import fingerprint

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel

logger = logging.getLogger(__name__)

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
BASE_FILE = "osprey_base.json"  # names the checkpoint that the adapter was trained on
_FILES = (ADAPTER_CONFIG, ADAPTER_WEIGHTS)


class AdapterMismatch(CheckpointError):
    """An adapter was trained on a base model of other sizes, or with other options."""


def read_adapter(folder: Path | str) -> dict[str, Tensor]:
    """Read the tensors of an adapter folder.

    Raises:
        FileNotFoundError: a file of the folder is missing.
    """
    missing = [name for name in _FILES if not (Path(folder) / name).is_file()]
    if missing:
        raise FileNotFoundError(f"{folder} is not an adapter folder: {', '.join(missing)} missing; expected {_FILES}")
    return load_file(Path(folder) / ADAPTER_WEIGHTS)


def wrap_in_peft(model: OspreyForCausalLM, config: LoraConfig) -> PeftModel:
    """Create `PeftModel(model, config)` without a deprecation warning that users cannot act on."""
    from peft import PeftModel

    with warnings.catch_warnings():
        # PEFT reads a property by the name that it had before transformers 5.20.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        return PeftModel(model, config)


def merge_adapter(model: OspreyForCausalLM, folder: Path | str, *, base: Path | str) -> OspreyForCausalLM:
    """Merge an adapter into a model's weights and return the model. `model` itself must not be used afterwards.

    Args:
        model: as loaded from `base`, in eval mode.
        folder: the adapter.
        base: the checkpoint folder, to compare with the one that the adapter was trained on. If the files differ, this
            logs a warning only: the same checkpoint may have been written again.

    Raises:
        AdapterMismatch: names or shapes differ.
        FileNotFoundError: a file of the folder is missing.
    """
    from peft import LoraConfig, get_peft_model_state_dict, set_peft_model_state_dict

    state = read_adapter(folder)
    config = LoraConfig.from_pretrained(str(folder))
    config.inference_mode = True
    device, dtype = model.device, model.dtype
    wrapped = wrap_in_peft(model, config)
    wanted = get_peft_model_state_dict(wrapped, save_embedding_layers=False)
    try:
        check_complete(wanted, state, source=str(folder))
    except CheckpointError as error:
        raise AdapterMismatch(
            f"the adapter {folder} was not trained on a model of the sizes of {base}: {error} of the base"
        ) from error
    _compare_base(Path(folder), Path(base))
    set_peft_model_state_dict(wrapped, state)
    merged = cast(OspreyForCausalLM, wrapped.merge_and_unload())
    merged.to(device=device, dtype=dtype)
    merged.keep_extractor_in_float32().requires_grad_(True).eval()
    return merged


def adapter_fingerprint(folder: Path | str) -> str:
    """Return a hash of an adapter's config and weights, 40 hex digits."""
    digest = hashlib.sha256()
    for name in _FILES:
        digest.update((Path(folder) / name).read_bytes())
    return digest.hexdigest()[:40]


def write_base(folder: Path | str, base: Path | str) -> None:
    """Write name and fingerprint of the base checkpoint into an adapter folder."""
    facts = {"base": Path(base).resolve().name, "fingerprint": fingerprint(base)}
    (Path(folder) / BASE_FILE).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def _compare_base(folder: Path, base: Path) -> None:
    path = folder / BASE_FILE
    if not path.is_file():
        return
    trained_on = json.loads(path.read_text(encoding="utf-8"))
    if trained_on["fingerprint"] != fingerprint(base):
        logger.warning(
            "%s was trained on %s (fingerprint %s); %s has other files", folder, trained_on["base"],
            trained_on["fingerprint"][:12], base,
        )  # fmt: skip
