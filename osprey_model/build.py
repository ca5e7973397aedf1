"""The only wiring: a config becomes a model, a checkpoint folder becomes a loaded model."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
from transformers import GenerationConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from osprey_model.checkpoint import GENERATION_FILE, check_complete, iter_weights, read_shapes
from osprey_model.config import OspreyConfig
from osprey_model.modeling.hf_config import OspreyHfConfig
from osprey_model.modeling.osprey import OspreyForCausalLM


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
    folder: Path | str, *, device: str | torch.device = "cpu", dtype: torch.dtype | None = None
) -> OspreyForCausalLM:
    """A checkpoint folder as a model in eval mode.

    Args:
        folder: config.json and weights, ours or a released checkpoint's.
        device: where the weights go.
        dtype: of everything but the mask extractor; None: float32 on the CPU, else bfloat16.

    Raises:
        FileNotFoundError: a file of the folder is missing.
        CheckpointError: the weights do not fit the config.
    """
    config = OspreyConfig.from_file(folder)
    device = torch.device(device)
    if dtype is None:
        dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    # On "meta" nothing is allocated or initialised: the checkpoint's tensors are put in place as they are.
    model = build_osprey(config, device="meta")
    check_complete(model.state_dict(), read_shapes(folder), source=str(folder))
    # Copied also where nothing changes: tensors mapped from a file are not aligned as kernels like them.
    placed = {
        name: tensor.to(device, torch.float32 if name.startswith("mask_extractor.") else dtype, copy=True)
        for name, tensor in iter_weights(folder)
    }
    model.load_state_dict(placed, strict=True, assign=True)
    model.model.rotary_emb = LlamaRotaryEmbedding(model.config).to(device)
    if (Path(folder) / GENERATION_FILE).is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    model.eval()
    return model
