"""The LLaMA layers of a model over explicit keys and values, with one prefix shared by all rows.

# B rows, S new positions per row, T positions of the rows so far, P prefix positions, D width
# M key-value heads, G query heads per key-value head, K head width

Attention over prefix and row is one softmax over both sets of scores, so the result is that of the plain
model on the concatenated sequence, while the prefix is never copied per row. It runs the model's own
modules (projections, norms, MLP): a LoRA or quantised layer works here as it does there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional

from osprey_model.engine.kv_cache import PrefixKv, RowKv
from osprey_model.modeling.osprey import OspreyForCausalLM

# layer index, queries (M, B, G, S, K), keys and values (M, B, S, K) -> context (M, B, G, S, K)
Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]


class SharedPrefixDecoder:
    """Prefill a prefix, then run rows behind it."""

    def __init__(self, model: OspreyForCausalLM) -> None:
        sizes = model.sizes
        self._model = model
        self._kv_heads = sizes.num_key_value_heads
        self._groups = sizes.num_attention_heads // sizes.num_key_value_heads
        self._head_dim = sizes.head_dim
        self._num_layers = sizes.num_hidden_layers
        weight = model.model.embed_tokens.weight
        self.device, self.dtype = weight.device, weight.dtype
        positions = torch.arange(sizes.max_position_embeddings, device=self.device)[None]
        cos_1TK, sin_1TK = model.model.rotary_emb(torch.empty(0, dtype=self.dtype, device=self.device), positions)
        self._cos_TK, self._sin_TK = cos_1TK[0], sin_1TK[0]

    def prefill(self, embeds_PD: Tensor) -> PrefixKv:
        """Keys and values of a prefix at positions 0..P-1."""
        keys: list[Tensor] = []
        values: list[Tensor] = []

        def attend(_layer_idx: int, q_M1GPK: Tensor, k_M1PK: Tensor, v_M1PK: Tensor) -> Tensor:
            keys.append(k_M1PK[:, 0].contiguous())
            values.append(v_M1PK[:, 0].contiguous())
            heads = q_M1GPK.flatten(0, 2)[None]  # (1, M*G, P, K)
            k_all, v_all = (each[:, 0].repeat_interleave(self._groups, dim=0)[None] for each in (k_M1PK, v_M1PK))
            context = functional.scaled_dot_product_attention(heads, k_all, v_all, is_causal=True)
            return context.view(q_M1GPK.shape)

        positions_1P = torch.arange(embeds_PD.shape[0], device=self.device)[None]
        self._run_layers(embeds_PD[None], positions_1P, attend)
        return PrefixKv(tuple(keys), tuple(values))

    def new_rows(self, pads_B: Tensor, capacity: int) -> RowKv:
        """Empty rows behind a prefix."""
        return RowKv(self._num_layers, self._kv_heads, self._head_dim, capacity, pads_B, self.dtype)

    def step(self, embeds_BSD: Tensor, positions_BS: Tensor, prefix: PrefixKv | None, rows: RowKv) -> Tensor:
        """Run S new positions of every row; logits (B, V) in float32 at the last of them."""
        num_new = embeds_BSD.shape[1]
        bias_1B1ST = rows.bias(num_new)
        scale = self._head_dim**-0.5

        def attend(layer_idx: int, q_MBGSK: Tensor, k_MBSK: Tensor, v_MBSK: Tensor) -> Tensor:
            keys_MBTK, values_MBTK = rows.append(layer_idx, k_MBSK, v_MBSK)
            shape = q_MBGSK.shape
            q_MBGSK = q_MBGSK * scale
            row_scores = q_MBGSK.flatten(2, 3) @ keys_MBTK.transpose(-1, -2)  # (M, B, G*S, T)
            row_scores = row_scores.view(*shape[:4], -1).float() + bias_1B1ST
            if prefix is None:
                weights = row_scores.softmax(dim=-1).to(q_MBGSK.dtype)
                return (weights.flatten(2, 3) @ values_MBTK).view(shape)
            keys_MPK, values_MPK = prefix.keys[layer_idx], prefix.values[layer_idx]
            prefix_scores = q_MBGSK.flatten(1, 3) @ keys_MPK.transpose(-1, -2)  # (M, B*G*S, P)
            prefix_scores = prefix_scores.view(*shape[:4], -1).float()
            weights = torch.cat([prefix_scores, row_scores], dim=-1).softmax(dim=-1).to(q_MBGSK.dtype)
            over_prefix, over_row = weights.tensor_split([prefix.length], dim=-1)
            context: Tensor = (over_prefix.flatten(1, 3) @ values_MPK).view(shape)
            return context + (over_row.flatten(2, 3) @ values_MBTK).view(shape)

        hidden_BSD = self._run_layers(embeds_BSD, positions_BS, attend)
        rows.advance(num_new)
        return cast(Tensor, self._model.lm_head(hidden_BSD[:, -1]).float())

    def embed(self, token_ids: Tensor) -> Tensor:
        """The decoder's embedding table."""
        return cast(Tensor, self._model.model.embed_tokens(token_ids))

    def _run_layers(self, embeds_BSD: Tensor, positions_BS: Tensor, attend: Attend) -> Tensor:
        num_rows, num_new = embeds_BSD.shape[:2]
        cos_B1SK, sin_B1SK = self._cos_TK[positions_BS][:, None], self._sin_TK[positions_BS][:, None]
        hidden_BSD = embeds_BSD
        for layer_idx, layer in enumerate(self._model.model.layers):
            normed_BSD = layer.input_layernorm(hidden_BSD)
            q_MBGSK = self._heads(layer.self_attn.q_proj(normed_BSD), self._groups)
            k_MB1SK = self._heads(layer.self_attn.k_proj(normed_BSD), 1)
            v_MBSK = self._heads(layer.self_attn.v_proj(normed_BSD), 1)[:, :, 0]
            q_MBGSK = rotate(q_MBGSK, cos_B1SK, sin_B1SK)
            k_MBSK = rotate(k_MB1SK, cos_B1SK, sin_B1SK)[:, :, 0]
            context_MBGSK = attend(layer_idx, q_MBGSK, k_MBSK, v_MBSK)
            context_BSD = context_MBGSK.permute(1, 3, 0, 2, 4).reshape(num_rows, num_new, -1)
            hidden_BSD = hidden_BSD + layer.self_attn.o_proj(context_BSD)
            hidden_BSD = hidden_BSD + layer.mlp(layer.post_attention_layernorm(hidden_BSD))
        return cast(Tensor, self._model.model.norm(hidden_BSD))

    def _heads(self, projected_BSD: Tensor, groups: int) -> Tensor:
        num_rows, num_new = projected_BSD.shape[:2]
        heads = projected_BSD.view(num_rows, num_new, self._kv_heads, groups, self._head_dim)
        return heads.permute(2, 0, 3, 1, 4)  # (M, B, G, S, K)


def rotate(heads_MBGSK: Tensor, cos_B1SK: Tensor, sin_B1SK: Tensor) -> Tensor:
    """Rotary position embedding, halves rotated (not interleaved)."""
    first, second = heads_MBGSK.chunk(2, dim=-1)
    return heads_MBGSK * cos_B1SK + torch.cat([-second, first], dim=-1) * sin_B1SK
