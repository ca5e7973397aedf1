"""Keys and values: of a prefix that rows share, and of the rows' own positions.

# L layers, M key-value heads, K head width, P prefix positions, B rows, T own positions of a row
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
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


@dataclass(frozen=True, slots=True)
class KvShape:
    """What a cache of own positions needs to know of a decoder."""

    num_layers: int
    num_kv_heads: int
    head_dim: int
    dtype: torch.dtype
    device: torch.device


class RowKv:
    """Own positions of rows: `keys` and `values` (L, B, M, T, K), row b of a batch in slot b.

    Rows that run lie in slots 0..n-1, so a step reads views. A slot that becomes free is filled by `move`.
    Positions behind a row's length hold old but finite numbers: their scores are hidden, not their values.
    """

    keys: Tensor
    values: Tensor

    def __init__(self, shape: KvShape, max_positions: int) -> None:
        """Nothing is allocated until `reserve`.

        Args:
            shape: of the decoder.
            max_positions: slots times positions that are kept at most; a single `reserve` may ask for more.
        """
        self._shape = shape
        self._max_positions = max_positions
        self.num_rows = self.capacity = 0
        self._allocate(0, 0, 0)

    def reserve(self, num_rows: int, capacity: int, num_used: int) -> None:
        """Have at least this many slots of this many positions; what is in the first `num_used` stays."""
        if num_rows <= self.num_rows and capacity <= self.capacity:
            return
        widest, longest = max(num_rows, self.num_rows), max(capacity, self.capacity)
        if widest * longest > self._max_positions:
            widest, longest = num_rows, capacity
        self._allocate(widest, longest, num_used)

    def release(self) -> None:
        """Give the memory back."""
        self._allocate(0, 0, 0)

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` positions of a slot into another."""
        self.keys[:, target, :, :length] = self.keys[:, source, :, :length]
        self.values[:, target, :, :length] = self.values[:, source, :, :length]

    @property
    def num_bytes(self) -> int:
        """Memory allocated."""
        return 2 * self.keys.numel() * self.keys.element_size()

    def _allocate(self, num_rows: int, capacity: int, num_used: int) -> None:
        shape = self._shape
        size = (shape.num_layers, num_rows, shape.num_kv_heads, capacity, shape.head_dim)
        kept = min(capacity, self.capacity)
        # One after the other, so that at no time both old and both new tensors exist.
        for name in ("keys", "values"):
            # Zeros: NaN or infinity in memory nobody wrote would survive a weight of zero.
            tensor = torch.zeros(size, dtype=shape.dtype, device=shape.device)
            if num_used:
                tensor[:, :num_used, :, :kept] = getattr(self, name)[:, :num_used, :, :kept]
            setattr(self, name, tensor)
        self.num_rows, self.capacity = num_rows, capacity
