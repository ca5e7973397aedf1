"""A faster backward pass for 7x7 depthwise convolutions on a CPU, for the tower's training only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional, grad


class DepthwiseBf16(torch.autograd.Function):
    """A 7x7 depthwise convolution in bfloat16, two to four times faster backward on a CPU than oneDNN's.

    The input's gradient is a convolution with the flipped kernel. The kernel's gradient is fastest in float32 with
    channels last.
    """

    @staticmethod
    def forward(ctx: Any, input_BCHW: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        input_BCHW = input_BCHW.to(torch.bfloat16).contiguous(memory_format=torch.channels_last)
        weight = weight.to(torch.bfloat16)
        ctx.save_for_backward(input_BCHW, weight)
        return functional.conv2d(input_BCHW, weight, bias.to(torch.bfloat16), padding=3, groups=weight.shape[0])

    @staticmethod
    def backward(ctx: Any, grad_BCHW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        input_BCHW, weight = ctx.saved_tensors
        channels = weight.shape[0]
        grad_BCHW = grad_BCHW.to(torch.bfloat16).contiguous(memory_format=torch.channels_last)
        grad_input = functional.conv2d(grad_BCHW, weight.flip(2, 3), padding=3, groups=channels)
        grad_BCHW = grad_BCHW.float()
        grad_weight = grad.conv2d_weight(  # type: ignore[no-untyped-call]
            input_BCHW.float(), weight.shape, grad_BCHW, padding=3, groups=channels
        )
        return grad_input, grad_weight, grad_BCHW.sum((0, 2, 3))


@contextmanager
def fast_depthwise(tower: nn.Module) -> Iterator[None]:
    """Route every depthwise convolution of `tower` through `DepthwiseBf16` within the block."""
    depthwise = [module for module in tower.modules() if isinstance(module, nn.Conv2d) and module.groups > 1]
    for conv in depthwise:
        conv.forward = partial(_run_depthwise, conv)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for conv in depthwise:
            del conv.forward


def _run_depthwise(conv: nn.Conv2d, input_BCHW: Tensor) -> Tensor:
    output_BCHW: Tensor = DepthwiseBf16.apply(input_BCHW, conv.weight, conv.bias)
    return output_BCHW
