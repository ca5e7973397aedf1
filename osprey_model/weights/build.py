"""A config -> a model with random weights; a checkpoint folder -> a loaded model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

import torch
from transformers import GenerationConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from osprey_model.config import OspreyConfig
from osprey_model.modeling.hf_config import OspreyHfConfig
from osprey_model.modeling.osprey import OspreyForCausalLM
from osprey_model.modeling.weight_names import check_complete
from osprey_model.weights.checkpoint import GENERATION_FILE, iter_weights, read_shapes
from osprey_model.weights.quantize import Bits, import_bitsandbytes, quantize_decoder


def build_osprey(
    config: OspreyConfig, *, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> OspreyForCausalLM:
    """Create a model with random weights (from torch's global generator), in training mode.

    The mask extractor is always float32. On `device="meta"` the model has shapes and names, but no weights.
    """
    with torch.device(device):
        model = OspreyForCausalLM(OspreyHfConfig.from_sizes(config)).to(dtype)
    return cast(OspreyForCausalLM, model.keep_extractor_in_float32())


def load_osprey(
    folder: Path | str,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | str | None = None,
    load_in: Bits | None = None,
    map_weights: bool = False,
    in_float32: Callable[[str], bool] | None = None,
) -> OspreyForCausalLM:
    """Load a checkpoint folder as a model in eval mode.

    Args:
        folder: holds config.json and weights, ours or a released checkpoint's.
        device: of the weights.
        dtype: of all weights except the mask extractor's, a torch dtype or its name; None: float32 on the CPU, else
            bfloat16.
        load_in: "4bit" or "8bit" for the decoder's linear layers; needs bitsandbytes.
        map_weights: on the CPU, leave weights that have `dtype` already in the pages of their files. They load
            immediately, and the system may drop pages and read them again. The files must not change meanwhile.
        in_float32: parameter name -> whether it is float32 regardless of `dtype`. Training keeps in float32 what
            it trains.

    Raises:
        QuantizationUnavailable: `load_in` is set and bitsandbytes is not installed.
        ValueError: the dtype or `load_in` is unknown.
        FileNotFoundError: a file of the folder is missing.
        CheckpointError: the weights do not fit the config.
    """
    if load_in is not None:
        import_bitsandbytes(load_in)  # fail before gigabytes are read
    config = OspreyConfig.from_file(folder)
    device = torch.device(device)
    if dtype is None:
        dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    dtype = _floating(dtype)
    # On "meta" nothing is allocated or initialised; the checkpoint's tensors become the parameters.
    model = build_osprey(config, device="meta")
    check_complete(model.state_dict(), read_shapes(folder), source=str(folder))
    placed = {}
    for name, tensor in iter_weights(folder):
        # Copy also mapped tensors whose address in the file is not aligned: kernels round differently there.
        copy = not map_weights or tensor.data_ptr() % 64 != 0
        to = "cpu" if load_in is not None and name.startswith("model.layers.") else device
        full = name.startswith("mask_extractor.") or (in_float32 is not None and in_float32(name))
        placed[name] = tensor.to(to, torch.float32 if full else dtype, copy=copy)
    model.load_state_dict(placed, strict=True, assign=True)
    if load_in is not None:
        quantize_decoder(model, load_in, device=device)
        model.model.layers.to(device)  # the norms
    model.model.rotary_emb = LlamaRotaryEmbedding(model.config).to(device)
    if (Path(folder) / GENERATION_FILE).is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    model.eval()
    return model


def _floating(dtype: torch.dtype | str) -> torch.dtype:
    """Return a floating point dtype, which may be given by name ("bfloat16", "torch.bfloat16").

    Raises:
        ValueError: it is not float32, bfloat16 or float16.
    """
    known = getattr(torch, dtype.removeprefix("torch."), None) if isinstance(dtype, str) else dtype
    if known not in (torch.float32, torch.bfloat16, torch.float16):
        raise ValueError(f"expected dtype float32, bfloat16 or float16, got {dtype!r}")
    return known
