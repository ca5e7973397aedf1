"""Quantise the decoder's linear layers to 4 or 8 bit with bitsandbytes, which nothing else needs.

Tower, projector, mask extractor, embeddings and output head keep their precision. The engine runs the model's own
modules, so quantised ones need no change there.
"""

from __future__ import annotations

import importlib
from typing import Any, Literal

import torch
from torch import nn

from osprey_model.modeling.osprey import OspreyForCausalLM

Bits = Literal["4bit", "8bit"]
BITS: tuple[Bits, ...] = ("4bit", "8bit")


class QuantizationUnavailable(ImportError):
    """bitsandbytes is not installed, or it does not work on this machine."""


def import_bitsandbytes(load_in: Bits) -> Any:
    """Import bitsandbytes.

    Raises:
        ValueError: `load_in` is neither "4bit" nor "8bit".
        QuantizationUnavailable: bitsandbytes cannot be imported.
    """
    if load_in not in BITS:
        raise ValueError(f"load_in must be one of {', '.join(BITS)}, got {load_in!r}")
    try:
        return importlib.import_module("bitsandbytes")
    except ImportError as error:
        raise QuantizationUnavailable(
            f"loading in 4 or 8 bit needs the package bitsandbytes ({error}); pip install it, or leave load_in out"
        ) from error


def quantize_decoder(model: OspreyForCausalLM, load_in: Bits, *, device: torch.device | str) -> None:
    """Replace every linear layer inside the decoder's blocks, one at a time, and put it on `device`.

    Raises:
        ValueError: `load_in` is neither "4bit" nor "8bit".
        QuantizationUnavailable: bitsandbytes cannot be imported.
    """
    bitsandbytes = import_bitsandbytes(load_in)
    for layer in model.model.layers:
        linears = [(name, module) for name, module in layer.named_modules() if isinstance(module, nn.Linear)]
        for name, linear in linears:
            parent, _, attribute = name.rpartition(".")
            quantized = _quantized(bitsandbytes, linear, load_in).to(device)
            setattr(layer.get_submodule(parent), attribute, quantized)


def _quantized(bitsandbytes: Any, linear: nn.Linear, load_in: Bits) -> nn.Module:
    sizes = (linear.in_features, linear.out_features)
    weight = linear.weight.detach()
    # NF4, and an outlier threshold of 6.0: the settings of the papers and of transformers.
    if load_in == "4bit":
        layer = bitsandbytes.nn.Linear4bit(*sizes, bias=False, compute_dtype=weight.dtype, quant_type="nf4")
        layer.weight = bitsandbytes.nn.Params4bit(weight, requires_grad=False, quant_type="nf4")
    else:
        layer = bitsandbytes.nn.Linear8bitLt(*sizes, bias=False, has_fp16_weights=False, threshold=6.0)
        layer.weight = bitsandbytes.nn.Int8Params(weight, requires_grad=False, has_fp16_weights=False)
    return layer.requires_grad_(False)  # type: ignore[no-any-return] # bitsandbytes is untyped here
