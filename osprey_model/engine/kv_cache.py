"""Keys and values: of a prefix that rows share, of the rows themselves, and the LRU that keeps prefixes.

# M key-value heads, K head width, P prefix positions, B rows, T row positions
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class PrefixKv:
    """Per layer (M, P, K), read by every row and copied for none."""

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]

    @property
    def length(self) -> int:
        """Positions P."""
        return int(self.keys[0].shape[1])

    @property
    def num_bytes(self) -> int:
        """Memory of all layers."""
        return sum(tensor.numel() * tensor.element_size() for tensor in (*self.keys, *self.values))

    def first(self, length: int) -> PrefixKv:
        """The first positions, as views."""
        if length == self.length:
            return self
        return PrefixKv(tuple(key[:, :length] for key in self.keys), tuple(value[:, :length] for value in self.values))


class RowKv:
    """Per layer (M, B, T, K), allocated for the longest row; rows are padded on the left, so all end together."""

    def __init__(
        self, num_layers: int, num_kv_heads: int, head_dim: int, capacity: int, pads_B: Tensor, dtype: torch.dtype
    ) -> None:
        """Allocate for as many rows as `pads_B` has; it holds each row's padding."""
        num_rows = int(pads_B.shape[0])
        shape = (num_layers, num_kv_heads, num_rows, capacity, head_dim)
        self._keys = torch.zeros(shape, dtype=dtype, device=pads_B.device)
        self._values = torch.zeros_like(self._keys)
        slots_T = torch.arange(capacity, device=pads_B.device)
        hidden_BT = slots_T[None] < pads_B[:, None]
        # Added to attention scores: -inf hides a row's padding.
        self._bias_BT = torch.zeros(hidden_BT.shape, device=pads_B.device).masked_fill(hidden_BT, float("-inf"))
        self.length = 0

    def append(self, layer_idx: int, keys_MBSK: Tensor, values_MBSK: Tensor) -> tuple[Tensor, Tensor]:
        """Write S new positions of a layer; returns that layer's keys and values up to them.

        `advance` moves the end once all layers have written.
        """
        end = self.length + keys_MBSK.shape[2]
        self._keys[layer_idx, :, :, self.length : end] = keys_MBSK
        self._values[layer_idx, :, :, self.length : end] = values_MBSK
        return self._keys[layer_idx, :, :, :end], self._values[layer_idx, :, :, :end]

    def advance(self, num_positions: int) -> None:
        """All layers have written `num_positions`."""
        self.length += num_positions

    def bias(self, num_new: int) -> Tensor:
        """What S new queries may see of the rows: 0 or -inf, (1, B, 1, S, T)."""
        end = self.length + num_new
        bias_BST = self._bias_BT[:, None, :end]
        if num_new > 1:
            ones_ST = torch.ones(num_new, end, dtype=torch.bool, device=bias_BST.device)
            future_ST = ones_ST.triu(self.length + 1)
            own_ST = ones_ST.tril(self.length) & ~ones_ST.tril(self.length - 1)
            # Padding sees itself: a softmax over nothing would be NaN, and NaN times a weight of zero still NaN.
            bias_BST = bias_BST.masked_fill(future_ST, float("-inf")).masked_fill(own_ST, 0.0)
        return bias_BST[None, :, None]

    def keep(self, row_idxs: Tensor) -> None:
        """Let the other rows go."""
        self._keys = self._keys.index_select(2, row_idxs)
        self._values = self._values.index_select(2, row_idxs)
        self._bias_BT = self._bias_BT.index_select(0, row_idxs)


class Sized(Protocol):
    """Something that knows its memory."""

    @property
    def num_bytes(self) -> int:
        """Memory in bytes."""


Entry = TypeVar("Entry", bound=Sized)


class ByteLru(Generic[Entry]):
    """Least recently used entries leave when the sum of bytes exceeds the limit; the newest always stays."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._entries: OrderedDict[str, Entry] = OrderedDict()

    def get(self, key: str) -> Entry | None:
        """The entry, now the most recently used."""
        if key not in self._entries:
            return None
        self._entries.move_to_end(key)
        return self._entries[key]

    def put(self, key: str, entry: Entry) -> None:
        """Keep an entry, replacing one of the same key."""
        self._entries[key] = entry
        self._entries.move_to_end(key)
        while len(self._entries) > 1 and self.num_bytes > self.limit_bytes:
            self._entries.popitem(last=False)

    @property
    def num_bytes(self) -> int:
        """Memory of all entries."""
        return sum(entry.num_bytes for entry in self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)
