"""The only wiring: a config becomes a model, a checkpoint folder becomes a loaded model."""

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
    """A model with fresh random weights (from torch's global generator), in training mode.

    The mask extractor is float32 whatever `dtype` is. On `device="meta"` it has shapes and names only.
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
    """A checkpoint folder as a model in eval mode.

    Args:
        folder: config.json and weights, ours or a released checkpoint's.
        device: where the weights go.
        dtype: of everything but the mask extractor, torch's or its name; None: float32 on the CPU, else bfloat16.
        load_in: "4bit" or "8bit" for the decoder's linear layers; needs bitsandbytes.
        map_weights: on the CPU, weights that are in `dtype` already stay in their files' pages: they load at once, and
            the system may drop and read them again. The files must not change while the model lives.
        in_float32: says by parameter name what is float32 whatever `dtype` is (training: what will train).

    Raises:
        QuantizationUnavailable: `load_in` without bitsandbytes.
        ValueError: a dtype or `load_in` that is not known.
        FileNotFoundError: a file of the folder is missing.
        CheckpointError: the weights do not fit the config.
    """
    if load_in is not None:
        import_bitsandbytes(load_in)  # before gigabytes are read
    config = OspreyConfig.from_file(folder)
    device = torch.device(device)
    if dtype is None:
        dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    dtype = _floating(dtype)
    # On "meta" nothing is allocated or initialised: the checkpoint's tensors are put in place as they are.
    model = build_osprey(config, device="meta")
    check_complete(model.state_dict(), read_shapes(folder), source=str(folder))
    placed = {}
    for name, tensor in iter_weights(folder):
        # Tensors that lie at odd addresses of a file are copied also where nothing changes: kernels round otherwise.
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
    """A floating point dtype, also by its name ("bfloat16", "torch.bfloat16").

    Raises:
        ValueError: anything else.
    """
    known = getattr(torch, dtype.removeprefix("torch."), None) if isinstance(dtype, str) else dtype
    if known not in (torch.float32, torch.bfloat16, torch.float16):
        raise ValueError(f"expected dtype float32, bfloat16 or float16, got {dtype!r}")
    return known
