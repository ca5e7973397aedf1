"""Keys and values: of an image prefix that rows share, and of the rows' own positions.

# L layers, M key-value heads, K head width, P prefix positions, B rows, T own positions of a row
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class PrefixKv:
    """Keys and values of one prefix, per layer (M, P, K). Every row of the image reads them; none copies them."""

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]

    @property
    def length(self) -> int:
        """Number of positions, P."""
        return int(self.keys[0].shape[1])

    @property
    def num_bytes(self) -> int:
        """Memory of all layers in bytes."""
        return sum(tensor.numel() * tensor.element_size() for tensor in (*self.keys, *self.values))

    def first(self, length: int) -> PrefixKv:
        """Return the first `length` positions, as views."""
        if length == self.length:
            return self
        return PrefixKv(tuple(key[:, :length] for key in self.keys), tuple(value[:, :length] for value in self.values))


@dataclass(frozen=True, slots=True)
class KvShape:
    """Sizes, dtype and device of a decoder's keys and values."""

    num_layers: int
    num_kv_heads: int
    head_dim: int
    dtype: torch.dtype
    device: torch.device


class RowKv:
    """Keys and values of the rows' own positions, each (L, B, M, T, K); row b of a batch lies in slot b.

    Running rows lie in slots 0..n-1, so a step reads views; `move` fills a slot that became free. Positions behind a
    row's length hold old numbers. These must be finite, because attention hides their scores, not their values.
    """

    keys: Tensor
    values: Tensor

    def __init__(self, shape: KvShape, max_positions: int) -> None:
        """Create a cache without slots; `reserve` allocates them.

        Args:
            shape: of the decoder.
            max_positions: most slots times positions that are kept; a single `reserve` may need more.
        """
        self._shape = shape
        self._max_positions = max_positions
        self.num_rows = self.capacity = 0
        self._allocate(0, 0, 0)

    def reserve(self, num_rows: int, capacity: int, num_used: int) -> None:
        """Ensure at least `num_rows` slots of `capacity` positions; the content of the first `num_used` slots stays."""
        if num_rows <= self.num_rows and capacity <= self.capacity:
            return
        widest, longest = max(num_rows, self.num_rows), max(capacity, self.capacity)
        if widest * longest > self._max_positions:
            widest, longest = num_rows, capacity
        self._allocate(widest, longest, num_used)

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` positions of a slot into another."""
        self.keys[:, target, :, :length] = self.keys[:, source, :, :length]
        self.values[:, target, :, :length] = self.values[:, source, :, :length]

    @property
    def num_bytes(self) -> int:
        """Allocated memory in bytes."""
        return 2 * self.keys.numel() * self.keys.element_size()

    def _allocate(self, num_rows: int, capacity: int, num_used: int) -> None:
        shape = self._shape
        size = (shape.num_layers, num_rows, shape.num_kv_heads, capacity, shape.head_dim)
        kept = min(capacity, self.capacity)
        # Keys first, then values, so that the old and the new tensors of both never exist at the same time.
        for name in ("keys", "values"):
            # Zeros, because NaN or infinity in unwritten memory would survive a weight of zero.
            tensor = torch.zeros(size, dtype=shape.dtype, device=shape.device)
            if num_used:
                tensor[:, :num_used, :, :kept] = getattr(self, name)[:, :num_used, :, :kept]
            setattr(self, name, tensor)
        self.num_rows, self.capacity = num_rows, capacity
