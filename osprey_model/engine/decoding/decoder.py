"""The LLaMA layers of a model over explicit keys and values: run prefixes once, then rows behind them.

# N packed new positions, B rows, I images, P prefix positions, D width, V vocabulary
# M key-value heads, G query heads per key-value head, K head width

A row attends to its image's prefix and to its own positions; the two results are merged by log-sum-exp
(`attention.py`). So the logits are those of the plain model on the whole sequence. New positions are packed: no matrix
multiplies padding. Norms and matrices are the model's own modules, or packed copies of them (`packed_linear.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor
from torch.nn import functional

from osprey_model.engine.decoding.attention import OwnPrefill, OwnStep, PrefixSpans, merge
from osprey_model.engine.decoding.kv_cache import KvShape, PrefixKv, RowKv
from osprey_model.engine.decoding.packed_linear import LayerProjections, Projection, may_pack
from osprey_model.modeling.osprey import OspreyForCausalLM

# layer index, queries (N, M, G, K), keys and values (N, M, K) -> context (N, M, G, K)
Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]


class PrefixAttention(Protocol):
    """Attention of packed positions to the prefixes they stand behind."""

    def attend(self, layer_idx: int, q_NMGK: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """Return context (N, M, G, K) and log-sum-exp (N, M, G)."""


class OwnAttention(Protocol):
    """Attention of packed positions to the own positions of their rows, after writing them there."""

    def attend(
        self, layer_idx: int, q_NMGK: Tensor, k_NMK: Tensor, v_NMK: Tensor, scale: float
    ) -> tuple[Tensor, Tensor]:
        """Write the new keys and values; return context (N, M, G, K) and log-sum-exp (N, M, G)."""


@dataclass(frozen=True, slots=True)
class NewRow:
    """A row to prefill.

    Attributes:
        embeds_SD: embeddings of its new positions.
        prefix: the image prefix it stands behind; None: it stands behind nothing.
        num_filled: own positions that its slot already holds, between the prefix and the new positions.
    """

    embeds_SD: Tensor
    prefix: PrefixKv | None
    num_filled: int = 0


class SharedPrefixDecoder:
    """A model's decoder that prefills image prefixes and runs rows behind them.

    Attributes:
        kv_shape: sizes, dtype and device of the keys and values it reads and writes.
    """

    def __init__(self, model: OspreyForCausalLM) -> None:
        sizes = model.sizes
        self._model = model
        self._kv_heads = sizes.num_key_value_heads
        self._groups = sizes.num_attention_heads // sizes.num_key_value_heads
        self._head_dim = sizes.head_dim
        self._scale = sizes.head_dim**-0.5
        weight = model.model.embed_tokens.weight
        self.device, self.dtype = weight.device, weight.dtype
        self.kv_shape = KvShape(sizes.num_hidden_layers, self._kv_heads, self._head_dim, self.dtype, self.device)
        positions = torch.arange(sizes.max_position_embeddings, device=self.device)[None]
        cos_1TK, sin_1TK = model.model.rotary_emb(torch.empty(0, dtype=self.dtype, device=self.device), positions)
        self._cos_TK, self._sin_TK = cos_1TK[0], sin_1TK[0]
        pack = may_pack(model)
        self._projections = [LayerProjections(layer, pack=pack) for layer in model.model.layers]
        self._head = Projection(model, ("lm_head",), pack=pack)

    def embed(self, token_ids: Tensor) -> Tensor:
        """Look ids up in the decoder's embedding table."""
        return cast(Tensor, self._model.model.embed_tokens(token_ids))

    def prefill_prefixes(self, embeds_IPD: Tensor) -> list[PrefixKv]:
        """Run prefixes of one length, (I, P, D), at positions 0..P-1; return the keys and values of each."""
        num_images, length = embeds_IPD.shape[:2]
        keys: list[Tensor] = []
        values: list[Tensor] = []

        def attend(layer_idx: int, q_NMGK: Tensor, k_NMK: Tensor, v_NMK: Tensor) -> Tensor:
            q_IHPK = q_NMGK.view(num_images, length, -1, self._head_dim).transpose(1, 2)
            # Contiguous per head, because every later step reads them.
            k_IMPK, v_IMPK = (
                each.view(num_images, length, self._kv_heads, self._head_dim).transpose(1, 2).contiguous()
                for each in (k_NMK, v_NMK)
            )
            keys.append(k_IMPK)
            values.append(v_IMPK)
            if layer_idx == len(self._projections) - 1:
                return q_NMGK  # the last layer's output for a prefix is not used
            k_all, v_all = (each.repeat_interleave(self._groups, dim=1) for each in (k_IMPK, v_IMPK))
            context = functional.scaled_dot_product_attention(q_IHPK, k_all, v_all, is_causal=True)
            return context.transpose(1, 2).reshape(q_NMGK.shape)

        positions_N = torch.arange(length, device=self.device).repeat(num_images)
        self._run_layers(embeds_IPD.flatten(0, 1), positions_N, attend, read_at=positions_N[:1])
        if num_images == 1:
            return [PrefixKv(tuple(key[0] for key in keys), tuple(value[0] for value in values))]
        # Cloned, so that an image in the cache does not keep the memory of its whole batch.
        return [
            PrefixKv(tuple(key[idx].clone() for key in keys), tuple(value[idx].clone() for value in values))
            for idx in range(num_images)
        ]

    def prefill_rows(self, new: Sequence[NewRow], rows: RowKv, first_slot: int) -> Tensor:
        """Run new rows in consecutive slots; return the hidden states (B, D) of each row's last position.

        Args:
            new: the rows. It is faster if rows of one prefix are adjacent.
            rows: keys and values of the slots, large enough for the new positions.
            first_slot: slot of the first row.
        """
        lengths = [row.embeds_SD.shape[0] for row in new]
        own = OwnPrefill(rows, first_slot, [row.num_filled for row in new], lengths, self._groups)
        to_prefix = PrefixSpans.of_runs([row.prefix for row in new], lengths)
        starts_B = torch.tensor([0 if row.prefix is None else row.prefix.length for row in new])
        starts_N = torch.repeat_interleave(starts_B, torch.tensor(lengths)).to(self.device)
        embeds_ND = torch.cat([row.embeds_SD for row in new])
        return self._run_rows(embeds_ND, starts_N + own.own_at, to_prefix, own, read_at=own.last_at)

    def step_rows(self, tokens_B: Tensor, positions_B: Tensor, to_prefix: PrefixAttention, own: OwnStep) -> Tensor:
        """Run one new token of each row in slots 0..B-1; return logits (B, V) in float32."""
        return self.logits(self._run_rows(self.embed(tokens_B), positions_B, to_prefix, own))

    def logits(self, hidden_BD: Tensor) -> Tensor:
        """Return logits (B, V) in float32. Called only at positions where a token is chosen."""
        return self._head(cast(Tensor, self._model.model.norm(hidden_BD))).float()

    def _run_rows(
        self,
        embeds_ND: Tensor,
        positions_N: Tensor,
        to_prefix: PrefixAttention,
        own: OwnAttention,
        *,
        read_at: Tensor | None = None,
    ) -> Tensor:
        def attend(layer_idx: int, q_NMGK: Tensor, k_NMK: Tensor, v_NMK: Tensor) -> Tensor:
            own_part = own.attend(layer_idx, q_NMGK, k_NMK, v_NMK, self._scale)
            return merge(to_prefix.attend(layer_idx, q_NMGK, self._scale), own_part)

        return self._run_layers(embeds_ND, positions_N, attend, read_at=read_at)

    def _run_layers(
        self, embeds_ND: Tensor, positions_N: Tensor, attend: Attend, *, read_at: Tensor | None = None
    ) -> Tensor:
        """Run all layers.

        Args:
            embeds_ND: embeddings of packed positions.
            positions_N: their positions in the whole sequence.
            attend: the attention of one layer.
            read_at: the packed positions whose result is needed; None: all. The last layer computes nothing else
                behind its attention.

        Returns:
            Hidden states before the final norm, (N, D) or those at `read_at`.
        """
        num = embeds_ND.shape[0]
        cos_N1K, sin_N1K = self._cos_TK[positions_N][:, None], self._sin_TK[positions_N][:, None]
        num_queries = self._kv_heads * self._groups
        hidden_ND = embeds_ND
        last = len(self._projections) - 1
        for layer_idx, (layer, project) in enumerate(zip(self._model.model.layers, self._projections, strict=True)):
            # Queries, keys and values; queries and keys are rotated to their positions.
            qkv_NHK = project.qkv(layer.input_layernorm(hidden_ND)).view(num, -1, self._head_dim)
            turned = rotate(qkv_NHK[:, : num_queries + self._kv_heads], cos_N1K, sin_N1K)
            q_NMGK = turned[:, :num_queries].reshape(num, self._kv_heads, self._groups, self._head_dim)
            k_NMK, v_NMK = turned[:, num_queries:], qkv_NHK[:, num_queries + self._kv_heads :]
            # Attention, which also writes the keys and values.
            context_ND = attend(layer_idx, q_NMGK, k_NMK, v_NMK).reshape(num, -1)
            if layer_idx == last and read_at is not None:
                context_ND, hidden_ND = context_ND[read_at], hidden_ND[read_at]
            hidden_ND = hidden_ND + project.out(context_ND)
            # Feed-forward network (SwiGLU).
            gate_NF, up_NF = project.gate_up(layer.post_attention_layernorm(hidden_ND)).chunk(2, dim=-1)
            hidden_ND = hidden_ND + project.down(functional.silu(gate_NF) * up_NF)
        return hidden_ND


def rotate(heads_NHK: Tensor, cos_N1K: Tensor, sin_N1K: Tensor) -> Tensor:
    """Apply rotary position embedding in LLaMA's layout: the two halves of a head are rotated, not interleaved."""
    first, second = heads_NHK.chunk(2, dim=-1)
    return heads_NHK * cos_N1K + torch.cat([-second, first], dim=-1) * sin_N1K
