"""The decoder's linear layers as the engine runs them.

On a CPU in float32 the engine keeps a copy of each weight in the layout of oneDNN's blocked kernels, as PyTorch's
compiler does when it freezes a model. That is 1.2 times as fast with 32 rows, and twice as fast for the output head.
Everywhere else, and for every layer that is not a plain `nn.Linear` (LoRA, quantised), the model's own module runs.
A weight that has been changed in place or replaced is copied again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from osprey_model.modeling.osprey import OspreyForCausalLM

# The copies double the memory of the decoder, so larger models run their own modules.
PACK_LIMIT_BYTES = 1 << 30
_BLOCKED_FROM_BYTES = 1 << 20  # smaller matrices fit into the core's cache, where a plain product is faster
_ROWS_HINT = 32  # the layout is fast for other numbers of rows too (measured: 1 to 600)


class Projection:
    """One or several linear modules with the same input; their outputs are concatenated."""

    def __init__(self, parent: nn.Module, names: Sequence[str], *, pack: bool) -> None:
        """Refer to modules by parent and name, so that a module that is replaced later is found.

        Args:
            parent: the module that holds them.
            names: attributes of `parent`.
            pack: use packed copies of plain linear layers.
        """
        self._parent = parent
        self._names = tuple(names)
        self._pack = pack
        self._packed: Tensor | None = None
        self._is_blocked = False
        self._source: tuple[tuple[int, int], ...] = ()

    def __call__(self, x_ND: Tensor) -> Tensor:
        """Multiply (N, D) with the matrices; return (N, sum of the modules' widths)."""
        modules = [getattr(self._parent, name) for name in self._names]
        if not (self._pack and all(_is_plain(module) for module in modules)):
            outputs = [module(x_ND) for module in modules]
            return cast(Tensor, outputs[0]) if len(outputs) == 1 else torch.cat(outputs, dim=-1)
        weights = [cast(Tensor, module.weight) for module in modules]
        source = tuple((weight.data_ptr(), weight._version) for weight in weights)
        if self._packed is None or source != self._source:
            joined = weights[0] if len(weights) == 1 else torch.cat(weights)
            self._is_blocked = joined.numel() * joined.element_size() >= _BLOCKED_FROM_BYTES
            if self._is_blocked:
                joined = torch.ops.mkldnn._reorder_linear_weight(joined.detach(), _ROWS_HINT)
            self._packed = joined.detach()
            self._source = source
        if not self._is_blocked:
            return functional.linear(x_ND, self._packed)
        return cast(Tensor, torch.ops.mkldnn._linear_pointwise(x_ND, self._packed, None, "none", [], ""))


class LayerProjections:
    """The four projections of one decoder layer."""

    def __init__(self, layer: Any, *, pack: bool) -> None:
        self.qkv = Projection(layer.self_attn, ("q_proj", "k_proj", "v_proj"), pack=pack)
        self.out = Projection(layer.self_attn, ("o_proj",), pack=pack)
        self.gate_up = Projection(layer.mlp, ("gate_proj", "up_proj"), pack=pack)
        self.down = Projection(layer.mlp, ("down_proj",), pack=pack)


def may_pack(model: OspreyForCausalLM) -> bool:
    """Return whether the engine uses packed copies: CPU, float32, oneDNN available, decoder of at most 1 GiB."""
    weights = [*model.model.layers.parameters(), *model.lm_head.parameters()]
    return (
        all(weight.device.type == "cpu" and weight.dtype == torch.float32 for weight in weights)
        and bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
        and sum(weight.numel() * weight.element_size() for weight in weights) <= PACK_LIMIT_BYTES
    )


def _is_plain(module: nn.Module) -> bool:
    # Weights created in inference mode have no version counter, so a change could not be detected.
    return type(module) is nn.Linear and module.bias is None and not module.weight.is_inference()
