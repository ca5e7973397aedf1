"""The decoder's matrices as the engine multiplies with them.

On a CPU in float32 a copy of each weight is laid out for oneDNN's blocked kernels (what PyTorch's own compiler
does when it freezes a model): 1.2 times faster with 32 rows, twice as fast for the vocabulary's matrix (DECISIONS.md).
Everywhere else, and for every layer that is not a plain `nn.Linear` (LoRA, quantised), the model's own module
runs. A weight that was changed in place or replaced since is laid out again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from osprey_model.modeling.osprey import OspreyForCausalLM

# The copies double the memory of the decoder; larger models keep to their own modules.
PACK_LIMIT_BYTES = 1 << 30
_BLOCKED_FROM_BYTES = 1 << 20  # a smaller matrix stays in the core's cache, and a plain product starts sooner
_ROWS_HINT = 32  # the layout is good for other numbers of rows too (measured: 1 to 600)


class Projection:
    """One or several linear modules over the same input; `__call__` gives their outputs side by side."""

    def __init__(self, parent: nn.Module, names: Sequence[str], *, pack: bool) -> None:
        """Take modules by where they are, so that one that replaces another is found.

        Args:
            parent: has the modules.
            names: of its attributes.
            pack: use packed copies of plain ones.
        """
        self._parent = parent
        self._names = tuple(names)
        self._pack = pack
        self._packed: Tensor | None = None
        self._is_blocked = False
        self._source: tuple[tuple[int, int], ...] = ()

    def __call__(self, x_ND: Tensor) -> Tensor:
        """(N, D) -> (N, sum of the modules' widths)."""
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
    """The matrices of one decoder layer."""

    def __init__(self, layer: Any, *, pack: bool) -> None:
        self.qkv = Projection(layer.self_attn, ("q_proj", "k_proj", "v_proj"), pack=pack)
        self.out = Projection(layer.self_attn, ("o_proj",), pack=pack)
        self.gate_up = Projection(layer.mlp, ("gate_proj", "up_proj"), pack=pack)
        self.down = Projection(layer.mlp, ("down_proj",), pack=pack)


def may_pack(model: OspreyForCausalLM) -> bool:
    """Whether a model's decoder is multiplied with by packed copies."""
    weights = [*model.model.layers.parameters(), *model.lm_head.parameters()]
    return (
        all(weight.device.type == "cpu" and weight.dtype == torch.float32 for weight in weights)
        and bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
        and sum(weight.numel() * weight.element_size() for weight in weights) <= PACK_LIMIT_BYTES
    )


def _is_plain(module: nn.Module) -> bool:
    # Weights made in inference mode carry no version, so a change of them could not be seen.
    return type(module) is nn.Linear and module.bias is None and not module.weight.is_inference()
