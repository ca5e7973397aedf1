"""Attention over parts of a sequence, and the merge of two parts by the log-sum-exp of their scores.

# M key-value heads, G query heads per key-value head, K head width, N packed positions, P prefix positions,
# B rows, S new positions per row, T own positions per row

The softmax over two sets of keys is the weighted sum of the two softmaxes; the weight of a set is its share of the sum
of exp(score). So a row attends to its image's prefix, which is never copied per row, then to its own positions, and
the two results are merged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from osprey_model.engine.decoding.kv_cache import PrefixKv, RowKv

# Below this many queries one matmul over all of them beats the fused kernel (CPU, measured: DECISIONS.md).
_FUSED_FROM_QUERIES = 64


def attend(q: Tensor, k: Tensor, v: Tensor, scale: float, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Compute attention and the log-sum-exp of its scores.

    Args:
        q: queries (..., S, K).
        k: keys (..., T, K).
        v: values, of the shape of `k`.
        scale: factor of the scores.
        bias: float32, added to the scores; -inf hides a key. Every query must see at least one key.

    Returns:
        Context (..., S, K) in the dtype of `v`, log-sum-exp (..., S) in float32.
    """
    if bias is None and q.device.type == "cpu" and q.ndim == 3 and q.shape[-2] >= _FUSED_FROM_QUERIES:
        # The kernel behind scaled_dot_product_attention, called directly because only it returns the log-sum-exp.
        context, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            q[None], k[None], v[None], scale=scale
        )
        return context[0], lse[0]
    # Scores of every query and key, in float32.
    scores = ((q * scale) @ k.transpose(-1, -2)).float()
    if bias is not None:
        scores = scores.add_(bias)
    # Softmax, relative to the largest score so that exp does not overflow.
    top = scores.amax(dim=-1, keepdim=True)
    weights = scores.sub_(top).exp_()
    total = weights.sum(dim=-1, keepdim=True)
    # Mean of the values under these weights; the sum of exp(score) is what a merge needs.
    context = (weights.to(v.dtype) @ v) / total.to(v.dtype)
    return context, (top + total.log())[..., 0]


def merge(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> Tensor:
    """Return attention over two sets of keys, (..., K), from the result of `attend` for each set."""
    (context, lse), (other_context, other_lse) = one, other
    # exp(lse) / (exp(lse) + exp(other_lse)): the share of the first set.
    share = torch.sigmoid(lse - other_lse)[..., None].to(context.dtype)
    return torch.lerp(other_context, context, share)


@dataclass(frozen=True, slots=True)
class Span:
    """Packed positions start..stop (exclusive) behind one prefix; `prefix` None: behind no prefix."""

    prefix: PrefixKv | None
    start: int
    stop: int


class PrefixSpans:
    """Attention of packed positions to their prefixes: one matmul per prefix, whose keys are read in place."""

    def __init__(self, spans: Sequence[Span], order_N: Tensor | None = None) -> None:
        """Store spans of the packed positions.

        Args:
            spans: cover all positions, one behind the other.
            order_N: the position that stands at each place of the spans; None: positions are in span order.
        """
        self._spans = spans
        self._order_N = order_N

    @classmethod
    def of_runs(cls, prefixes: Sequence[PrefixKv | None], lengths: Sequence[int]) -> PrefixSpans:
        """Create the spans of rows packed one behind the other; adjacent rows with the same prefix share a span.

        Args:
            prefixes: of each row.
            lengths: positions of each row.
        """
        spans: list[Span] = []
        at = 0
        for prefix, length in zip(prefixes, lengths, strict=True):
            if spans and spans[-1].prefix is prefix:
                spans[-1] = Span(prefix, spans[-1].start, at + length)
            else:
                spans.append(Span(prefix, at, at + length))
            at += length
        return cls(spans)

    @classmethod
    def of_rows(cls, prefixes: Sequence[PrefixKv | None], device: torch.device) -> PrefixSpans:
        """Create the spans of a batch with one position per row; rows of one prefix may stand anywhere in it."""
        # Sort the rows by prefix, so that each prefix has one span.
        places: dict[int, list[int]] = {}
        for place, prefix in enumerate(prefixes):
            places.setdefault(id(prefix), []).append(place)
        order = [place for group in places.values() for place in group]
        spans = cls.of_runs([prefixes[place] for place in order], [1] * len(order))
        if len(places) > 1:
            spans._order_N = torch.tensor(order, device=device)
        return spans

    def attend(self, layer_idx: int, q_NMGK: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """Return context (N, M, G, K) and log-sum-exp (N, M, G)."""
        # 1. Bring the queries into span order.
        ordered_NMGK = q_NMGK if self._order_N is None else q_NMGK.index_select(0, self._order_N)
        parts = []
        for span in self._spans:
            if span.prefix is None:
                # No keys: a log-sum-exp of -inf gives this part no share in a merge.
                nothing_NMGK = torch.zeros_like(ordered_NMGK[span.start : span.stop])
                unseen_NMG = torch.full(nothing_NMGK.shape[:3], float("-inf"), device=nothing_NMGK.device)
                parts.append((nothing_NMGK, unseen_NMG))
                continue
            # 2. One matmul per key-value head: all positions and query heads of the span are rows of one matrix.
            q_MNGK = ordered_NMGK[span.start : span.stop].transpose(0, 1)
            num_heads, length, groups, width = q_MNGK.shape
            context, lse = attend(
                q_MNGK.reshape(num_heads, length * groups, width),
                span.prefix.keys[layer_idx],
                span.prefix.values[layer_idx],
                scale,
            )
            parts.append(
                (
                    context.view(num_heads, length, groups, width).transpose(0, 1),
                    lse.reshape(num_heads, length, groups).transpose(0, 1),
                )
            )
        if len(parts) == 1 and self._order_N is None:
            return parts[0]
        # 3. Join the spans, and bring their positions back into packed order.
        context_NMGK = torch.cat([context for context, _ in parts])
        lse_NMG = torch.cat([lse for _, lse in parts])
        if self._order_N is None:
            return context_NMGK, lse_NMG
        back_N = torch.empty_like(self._order_N)
        back_N[self._order_N] = torch.arange(len(back_N), device=back_N.device)
        return context_NMGK.index_select(0, back_N), lse_NMG.index_select(0, back_N)


class OwnStep:
    """Attention of one new position per row: write its keys and values, then attend to the row's own positions."""

    def __init__(self, rows: RowKv, at_B: Tensor, num_positions: int) -> None:
        """Prepare a step of the rows in slots 0..B-1.

        Args:
            rows: keys and values of the slots.
            at_B: own position at which each row's new token is written.
            num_positions: number of own positions to read; greater than every entry of `at_B`.
        """
        num_rows = at_B.shape[0]
        self._keys = rows.keys[:, :num_rows, :, :num_positions]
        self._values = rows.values[:, :num_rows, :, :num_positions]
        self._slots_B = torch.arange(num_rows, device=at_B.device)
        self._at_B = at_B
        # A row sees its own positions up to the new one; what lies behind it in the slot is old.
        hidden_BT = torch.arange(num_positions, device=at_B.device)[None] > at_B[:, None]
        bias_BT = torch.zeros(hidden_BT.shape, device=at_B.device).masked_fill_(hidden_BT, float("-inf"))
        self._bias_B11T = bias_BT[:, None, None]

    def attend(
        self, layer_idx: int, q_BMGK: Tensor, k_BMK: Tensor, v_BMK: Tensor, scale: float
    ) -> tuple[Tensor, Tensor]:
        """Write one layer's new keys and values; return context (B, M, G, K) and log-sum-exp (B, M, G)."""
        keys_BMTK, values_BMTK = self._keys[layer_idx], self._values[layer_idx]
        keys_BMTK[self._slots_B, :, self._at_B] = k_BMK
        values_BMTK[self._slots_B, :, self._at_B] = v_BMK
        return attend(q_BMGK, keys_BMTK, values_BMTK, scale, self._bias_B11T)


class OwnPrefill:
    """Attention of several new positions per row, packed without padding. Rows may already hold own positions.

    Only the small attention of a row to itself runs on a padded grid of rows and steps. The model's matrices multiply
    packed positions.
    """

    def __init__(
        self, rows: RowKv, first_slot: int, filled: Sequence[int], lengths: Sequence[int], groups: int = 1
    ) -> None:
        """Prepare rows in consecutive slots.

        Args:
            rows: keys and values of the slots.
            first_slot: slot of the first row.
            filled: number of own positions that each row already holds.
            lengths: number of new positions of each row; packed one row behind the other.
            groups: query heads per key-value head, G.
        """
        device = rows.keys.device
        num_rows, longest = len(lengths), max(lengths)
        num_positions = max(held + length for held, length in zip(filled, lengths, strict=True))
        at = slice(first_slot, first_slot + num_rows)
        self._keys = rows.keys[:, at, :, :num_positions]
        self._values = rows.values[:, at, :, :num_positions]
        lengths_B, filled_B = torch.tensor(lengths), torch.tensor(filled)
        # For each packed position: its row, and its step within the row.
        row_N = torch.repeat_interleave(torch.arange(num_rows), lengths_B)
        starts_B = lengths_B.cumsum(0) - lengths_B
        step_N = torch.arange(len(row_N)) - starts_B[row_N]
        # For each cell of the grid (row, step): the packed position in it. Cells behind a row's end repeat its last
        # position; their results are not read.
        steps_S = torch.arange(longest)
        grid_BS = starts_B[:, None] + torch.minimum(steps_S[None], lengths_B[:, None] - 1)
        self._grid_BS = grid_BS.to(device)
        # The way back: the grid cell of each packed position.
        self._cell_N = (row_N * longest + step_N).to(device)
        self._row_N = row_N.to(device)
        # The own position at which each packed position is written.
        self.own_at = (filled_B[row_N] + step_N).to(device)  # (N,)
        # Step s of a row sees what the row held before, and its new positions up to s.
        hidden_BST = torch.arange(num_positions) > (filled_B[:, None, None] + steps_S[None, :, None])
        bias_BST = torch.zeros(hidden_BST.shape).masked_fill_(hidden_BST, float("-inf")).to(device)
        self._bias_B1ST = bias_BST.repeat(1, groups, 1)[:, None]  # (B, 1, G * S, T)
        # The packed position that is each row's last: its hidden state predicts the first token.
        self.last_at = (starts_B + lengths_B - 1).to(device)  # (B,)

    def attend(
        self, layer_idx: int, q_NMGK: Tensor, k_NMK: Tensor, v_NMK: Tensor, scale: float
    ) -> tuple[Tensor, Tensor]:
        """Write one layer's new keys and values; return context (N, M, G, K) and log-sum-exp (N, M, G)."""
        # 1. Write the new keys and values into the rows' slots.
        keys_BMTK, values_BMTK = self._keys[layer_idx], self._values[layer_idx]
        keys_BMTK[self._row_N, :, self.own_at] = k_NMK
        values_BMTK[self._row_N, :, self.own_at] = v_NMK
        # 2. Put the queries onto the grid; steps and query heads of a key-value head are rows of one matrix.
        q_BMGSK = q_NMGK[self._grid_BS].permute(0, 2, 3, 1, 4)  # from (B, S, M, G, K)
        num_rows, num_heads, groups, longest, width = q_BMGSK.shape
        context, lse = attend(
            q_BMGSK.reshape(num_rows, num_heads, groups * longest, width),
            keys_BMTK,
            values_BMTK,
            scale,
            self._bias_B1ST,
        )
        # 3. Take the packed positions back out of the grid.
        context = (
            context.view(q_BMGSK.shape).permute(0, 3, 1, 2, 4).reshape(num_rows * longest, num_heads, groups, width)
        )
        lse = lse.view(q_BMGSK.shape[:4]).permute(0, 3, 1, 2).reshape(num_rows * longest, num_heads, groups)
        return context.index_select(0, self._cell_N), lse.index_select(0, self._cell_N)
