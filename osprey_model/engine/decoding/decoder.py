"""The LLaMA layers of a model over explicit keys and values: prefixes once, then rows behind them.

# N packed new positions, B rows, I images, P prefix positions, D width, V vocabulary
# M key-value heads, G query heads per key-value head, K head width

A row attends to its image's prefix and to its own positions, merged by log-sum-exp (`attention.py`), so the
result is that of the plain model on the whole sequence. New positions are packed: no matrix ever multiplies
padding. Norms and matrices are the model's own modules, or packed copies of them (`linear.py`).
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


class Shared(Protocol):
    """How packed positions attend to the prefixes they stand behind."""

    def attend(self, layer_idx: int, q_NMGK: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """Context (N, M, G, K) and log-sum-exp (N, M, G)."""


class Own(Protocol):
    """How packed positions are written to their rows and attend to them."""

    def attend(
        self, layer_idx: int, q_NMGK: Tensor, k_NMK: Tensor, v_NMK: Tensor, scale: float
    ) -> tuple[Tensor, Tensor]:
        """Context (N, M, G, K) and log-sum-exp (N, M, G)."""


@dataclass(frozen=True, slots=True)
class NewRow:
    """A row to be prefilled: embeddings (S, D) behind `lead` own positions behind a prefix."""

    embeds_SD: Tensor
    prefix: PrefixKv | None
    lead: int = 0


class SharedPrefixDecoder:
    """Prefill prefixes, then run rows behind them."""

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
        """The decoder's embedding table."""
        return cast(Tensor, self._model.model.embed_tokens(token_ids))

    def prefill_prefixes(self, embeds_IPD: Tensor) -> list[PrefixKv]:
        """Keys and values of prefixes of one length, at positions 0..P-1."""
        num_images, length = embeds_IPD.shape[:2]
        keys: list[Tensor] = []
        values: list[Tensor] = []

        def attend(layer_idx: int, q_NMGK: Tensor, k_NMK: Tensor, v_NMK: Tensor) -> Tensor:
            q_IHPK = q_NMGK.view(num_images, length, -1, self._head_dim).transpose(1, 2)
            # Contiguous per head: every later step reads them.
            k_IMPK, v_IMPK = (
                each.view(num_images, length, self._kv_heads, self._head_dim).transpose(1, 2).contiguous()
                for each in (k_NMK, v_NMK)
            )
            keys.append(k_IMPK)
            values.append(v_IMPK)
            if layer_idx == len(self._projections) - 1:
                return q_NMGK  # nobody reads what the last layer would make of it
            k_all, v_all = (each.repeat_interleave(self._groups, dim=1) for each in (k_IMPK, v_IMPK))
            context = functional.scaled_dot_product_attention(q_IHPK, k_all, v_all, is_causal=True)
            return context.transpose(1, 2).reshape(q_NMGK.shape)

        positions_N = torch.arange(length, device=self.device).repeat(num_images)
        self._run_layers(embeds_IPD.flatten(0, 1), positions_N, attend, read_at=positions_N[:1])
        if num_images == 1:
            return [PrefixKv(tuple(key[0] for key in keys), tuple(value[0] for value in values))]
        # Copied apart: an image that stays in the cache must not keep the others of its batch.
        return [
            PrefixKv(tuple(key[idx].clone() for key in keys), tuple(value[idx].clone() for value in values))
            for idx in range(num_images)
        ]

    def prefill_rows(self, new: Sequence[NewRow], rows: RowKv, first_slot: int) -> Tensor:
        """Fill consecutive slots with new rows; hidden states (B, D) of the last position of each.

        Args:
            new: rows of one prefix next to each other.
            rows: large enough.
            first_slot: of the first row.
        """
        lengths = [row.embeds_SD.shape[0] for row in new]
        own = OwnPrefill(rows, first_slot, [row.lead for row in new], lengths, self._groups)
        shared = PrefixSpans.of_runs([row.prefix for row in new], lengths)
        starts_B = torch.tensor([0 if row.prefix is None else row.prefix.length for row in new])
        starts_N = torch.repeat_interleave(starts_B, torch.tensor(lengths)).to(self.device)
        embeds_ND = torch.cat([row.embeds_SD for row in new])
        return self._run_rows(embeds_ND, starts_N + own.own_at, shared, own, read_at=own.last_at)

    def step_rows(self, tokens_B: Tensor, positions_B: Tensor, shared: Shared, own: OwnStep) -> Tensor:
        """One new token for each row of slots 0..B-1; logits (B, V) in float32."""
        return self.logits(self._run_rows(self.embed(tokens_B), positions_B, shared, own))

    def logits(self, hidden_BD: Tensor) -> Tensor:
        """(B, V) in float32; only called where a token is sampled."""
        return self._head(cast(Tensor, self._model.model.norm(hidden_BD))).float()

    def _run_rows(
        self, embeds_ND: Tensor, positions_N: Tensor, shared: Shared, own: Own, *, read_at: Tensor | None = None
    ) -> Tensor:
        def attend(layer_idx: int, q_NMGK: Tensor, k_NMK: Tensor, v_NMK: Tensor) -> Tensor:
            behind = own.attend(layer_idx, q_NMGK, k_NMK, v_NMK, self._scale)
            return merge(shared.attend(layer_idx, q_NMGK, self._scale), behind)

        return self._run_layers(embeds_ND, positions_N, attend, read_at=read_at)

    def _run_layers(
        self, embeds_ND: Tensor, positions_N: Tensor, attend: Attend, *, read_at: Tensor | None = None
    ) -> Tensor:
        """Hidden states of all positions, or of those at `read_at` alone: only they leave the last attention."""
        num = embeds_ND.shape[0]
        cos_N1K, sin_N1K = self._cos_TK[positions_N][:, None], self._sin_TK[positions_N][:, None]
        num_queries = self._kv_heads * self._groups
        hidden_ND = embeds_ND
        last = len(self._projections) - 1
        for layer_idx, (layer, project) in enumerate(zip(self._model.model.layers, self._projections, strict=True)):
            qkv_NHK = project.qkv(layer.input_layernorm(hidden_ND)).view(num, -1, self._head_dim)
            turned = rotate(qkv_NHK[:, : num_queries + self._kv_heads], cos_N1K, sin_N1K)
            q_NMGK = turned[:, :num_queries].reshape(num, self._kv_heads, self._groups, self._head_dim)
            k_NMK, v_NMK = turned[:, num_queries:], qkv_NHK[:, num_queries + self._kv_heads :]
            context_ND = attend(layer_idx, q_NMGK, k_NMK, v_NMK).reshape(num, -1)
            if layer_idx == last and read_at is not None:
                context_ND, hidden_ND = context_ND[read_at], hidden_ND[read_at]
            hidden_ND = hidden_ND + project.out(context_ND)
            gate_NF, up_NF = project.gate_up(layer.post_attention_layernorm(hidden_ND)).chunk(2, dim=-1)
            hidden_ND = hidden_ND + project.down(functional.silu(gate_NF) * up_NF)
        return hidden_ND


def rotate(heads_NHK: Tensor, cos_N1K: Tensor, sin_N1K: Tensor) -> Tensor:
    """Rotary position embedding, halves rotated (not interleaved)."""
    first, second = heads_NHK.chunk(2, dim=-1)
    return heads_NHK * cos_N1K + torch.cat([-second, first], dim=-1) * sin_N1K
