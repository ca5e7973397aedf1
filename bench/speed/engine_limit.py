"""The arithmetic floor of answering many questions on one image, from FLOPs and a measured matmul rate.

Per question these are counted: every prompt token after the shared prefix once through all layers, the vocabulary
matrix once per decoded token, one pass per decoded token except the last, and attention's two products over prefix and
own positions. The image (tower and prefix) is measured, not counted. Tokens that several regions share are counted for
each of them, although the engine runs them once. The engine can therefore be slightly faster than the floor.
"""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn

from bench.speed.engine_setting import Setting
from osprey_model.engine.decoding.packed_linear import Projection, may_pack
from osprey_model.engine.prompt_plan import Planner
from osprey_model.engine.requests import Question, RegionRequest

_ROWS = 96  # a full batch, for the matmul whose rate is measured
_SECONDS = 0.5


def floor_flops(setting: Setting, regions: list[RegionRequest]) -> float:
    """Count the FLOPs of all questions after the prefix."""
    sizes = setting.model.sizes
    planner = Planner(setting.tokenizer, num_image_tokens=sizes.num_image_tokens, context=sizes.max_position_embeddings)
    return sum(_of_question(setting, planner, question) for region in regions for question in region.questions)


def _of_question(setting: Setting, planner: Planner, question: Question) -> float:
    sizes, plan = setting.model.sizes, planner.plan(question)
    own = len(plan.prompt_prefix_ids) + len(plan.tail_ids)
    prefix = plan.shared + sizes.num_image_tokens - 1
    passes = own + setting.new_tokens - 1
    kv_width = sizes.num_key_value_heads * sizes.head_dim
    layer = sizes.hidden_size * (2 * sizes.hidden_size + 2 * kv_width + 3 * sizes.intermediate_size)
    attention = 2 * sizes.hidden_size * (prefix + passes / 2)
    head = sizes.hidden_size * sizes.vocab_size * setting.new_tokens
    return 2 * (passes * sizes.num_hidden_layers * (layer + attention) + head)


@torch.inference_mode()
def matmul_rate(setting: Setting) -> float:
    """Measure FLOP/s of the decoder's widest layer matrix over a full batch; best of module and packed copy."""
    mlp = setting.model.model.layers[0].mlp
    x_ND = torch.randn(_ROWS, setting.model.sizes.hidden_size, device=setting.model.device, dtype=setting.model.dtype)
    flops: float = 2 * _ROWS * mlp.gate_proj.weight.numel()
    ways = [mlp.gate_proj, Projection(mlp, ("gate_proj",), pack=may_pack(setting.model))]
    return max(flops / _seconds(way, x_ND) for way in ways)


def _seconds(way: nn.Module | Projection, x_ND: Tensor) -> float:
    """Return the seconds of one call, the best of several rounds because the machine may be busy."""
    rounds: list[float] = []
    until = time.perf_counter() + _SECONDS
    way(x_ND)
    while time.perf_counter() < until or len(rounds) < 3:
        started = time.process_time()
        for _ in range(20):
            way(x_ND)
        if x_ND.is_cuda:
            torch.cuda.synchronize()
        rounds.append((time.process_time() - started) / 20)
    return min(rounds)
