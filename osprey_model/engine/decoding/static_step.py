"""A decode step of fixed shapes, so that a GPU can replay it as one captured graph.

# L layers, I images, R rows per image, B rows, M key-value heads, G query heads per key-value head, K head width
# P prefix positions, T own positions, V vocabulary

Launching a step's few thousand kernels one by one costs a GPU more time than running them. So rows are counted up to
a power of two, own positions to a multiple of 64, and the prefixes of the images in flight lie in one pool
(copied there once per image, never per row); each combination is captured once and replayed afterwards.
Rows beyond the real ones decode token 0 into slots nobody reads. On the CPU the same shapes run without a
graph, which is what the tests compare with the plain step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from osprey_model.engine.decoding.attention import OwnStep, attend
from osprey_model.engine.decoding.decoder import SharedPrefixDecoder
from osprey_model.engine.decoding.kv_cache import PrefixKv, RowKv
from osprey_model.engine.decoding.rows import Row

_POSITIONS_STEP = 64
_WARMUP_RUNS = 2  # before a capture: libraries allocate and choose kernels in their first runs


@dataclass(frozen=True, slots=True)
class Shape:
    """What a captured step is good for."""

    rows: int
    positions: int
    images: int
    rows_per_image: int


class PrefixPool:
    """The prefixes of the images in flight, (L, I, M, P, K), each copied in once."""

    def __init__(self, decoder: SharedPrefixDecoder) -> None:
        self._shape = decoder.kv_shape
        self._held: list[PrefixKv | None] = []
        self.keys = self.values = torch.empty(0)
        self.bias_IP = torch.empty(0)

    def place(self, prefixes: Sequence[PrefixKv]) -> list[int]:
        """Where each prefix lies. Those not asked for make room."""
        wanted = {id(prefix): prefix for prefix in prefixes}
        for idx, held in enumerate(self._held):
            if held is not None and id(held) not in wanted:
                self._held[idx] = None
        longest = max(prefix.length for prefix in wanted.values())
        if len(wanted) > len(self._held) or longest > self.bias_IP.shape[-1]:
            self._allocate(power_of_two(max(len(wanted), len(self._held))), longest)
        at = {id(held): idx for idx, held in enumerate(self._held) if held is not None}
        for key, prefix in wanted.items():
            if key not in at:
                at[key] = self._held.index(None)
                self._put(at[key], prefix)
        return [at[id(prefix)] for prefix in prefixes]

    def _put(self, idx: int, prefix: PrefixKv) -> None:
        self._held[idx] = prefix
        for layer_idx, (key, value) in enumerate(zip(prefix.keys, prefix.values, strict=True)):
            self.keys[layer_idx, idx, :, : prefix.length] = key
            self.values[layer_idx, idx, :, : prefix.length] = value
        self.bias_IP[idx] = 0.0
        self.bias_IP[idx, prefix.length :] = float("-inf")

    def _allocate(self, images: int, positions: int) -> None:
        held, shape = [prefix for prefix in self._held if prefix is not None], self._shape
        size = (shape.num_layers, images, shape.num_kv_heads, positions, shape.head_dim)
        self.keys = self.values = torch.empty(0)  # the old ones go before the new ones come
        self.keys = torch.zeros(size, dtype=shape.dtype, device=shape.device)
        self.values = torch.zeros_like(self.keys)
        self.bias_IP = torch.zeros(images, positions, device=shape.device)
        self._held = [None] * images
        for idx, prefix in enumerate(held):
            self._put(idx, prefix)


class PoolShared:
    """Rows against the pool: a grid of rows per image, so that every image's queries are one matmul."""

    def __init__(self, pool: PrefixPool, grid_IR: Tensor, cell_B: Tensor) -> None:
        """Take the grid.

        Args:
            pool: of at least I images.
            grid_IR: which row each cell asks for.
            cell_B: where each row's cell is, flat.
        """
        self._pool = pool
        self._grid_IR = grid_IR
        self._cell_B = cell_B

    def attend(self, layer_idx: int, q_BMGK: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """(B, M, G, K) and (B, M, G)."""
        images, rows = self._grid_IR.shape
        q_IMRGK = q_BMGK[self._grid_IR].transpose(1, 2)
        _, heads, _, groups, width = q_IMRGK.shape
        context, lse = attend(
            q_IMRGK.reshape(images, heads, rows * groups, width),
            self._pool.keys[layer_idx, :images],
            self._pool.values[layer_idx, :images],
            scale,
            self._pool.bias_IP[:images, None, None],
        )
        context = context.view(q_IMRGK.shape).transpose(1, 2).reshape(images * rows, heads, groups, width)
        lse = lse.view(images, heads, rows, groups).transpose(1, 2).reshape(images * rows, heads, groups)
        return context[self._cell_B], lse[self._cell_B]


@dataclass(slots=True)
class _Captured:
    inputs: Tensor  # rows of int64: tokens, own positions, positions, cells; then the grid
    run: Callable[[], Tensor]


class StaticStep:
    """`step` gives what `SharedPrefixDecoder.step_rows` gives, in shapes that repeat."""

    def __init__(self, decoder: SharedPrefixDecoder, *, capture: bool) -> None:
        """Take a decoder.

        Args:
            decoder: on any device.
            capture: replay CUDA graphs; False: run the same shapes eagerly.
        """
        self._decoder = decoder
        self._capture = capture
        self._pool = PrefixPool(decoder)
        self._captured: dict[Shape, _Captured] = {}
        self._memory: tuple[int, ...] = ()
        self._graph_memory: Any = None

    @staticmethod
    def slots_for(num_rows: int) -> int:
        """How many slots a step over so many rows touches."""
        return power_of_two(num_rows)

    def step(self, rows: Sequence[Row], kv: RowKv) -> Tensor:
        """Logits (B, V) of the rows in slots 0..B-1."""
        places = self._pool.place([row.prefix for row in rows if row.prefix is not None])
        of_image: dict[int, list[int]] = {}
        for idx, place in enumerate(places):
            of_image.setdefault(place, []).append(idx)
        needed = max(row.length for row in rows) + 1
        shape = Shape(
            rows=power_of_two(len(rows)),
            positions=min(-(-needed // _POSITIONS_STEP) * _POSITIONS_STEP, kv.capacity),
            images=power_of_two(max(places) + 1),
            rows_per_image=power_of_two(max(len(idxs) for idxs in of_image.values())),
        )
        inputs = self._inputs(rows, of_image, shape)
        memory = (kv.keys.data_ptr(), kv.values.data_ptr(), self._pool.keys.data_ptr(), self._pool.values.data_ptr())
        if memory != self._memory:  # a graph reads the addresses it was captured with
            self._captured.clear()
            self._memory = memory
        if shape not in self._captured:
            self._captured[shape] = self._prepare(shape, inputs, kv)
        captured = self._captured[shape]
        captured.inputs.copy_(inputs)
        return captured.run()[: len(rows)]

    def _inputs(self, rows: Sequence[Row], of_image: dict[int, list[int]], shape: Shape) -> Tensor:
        """All of a step's integers in one tensor: one copy to the device."""
        padding = shape.rows - len(rows)
        grid = [0] * (shape.images * shape.rows_per_image)
        cells = [0] * shape.rows
        for place, idxs in of_image.items():
            for column, idx in enumerate(idxs):
                cells[idx] = place * shape.rows_per_image + column
                grid[cells[idx]] = idx
        columns = (
            [row.next_token for row in rows] + [0] * padding,
            [row.length for row in rows] + [0] * padding,
            [row.position for row in rows] + [0] * padding,
            cells,
            grid,
        )
        return torch.tensor([value for column in columns for value in column])

    def _prepare(self, shape: Shape, inputs: Tensor, kv: RowKv) -> _Captured:
        static = inputs.to(self._decoder.device)
        counts = [shape.rows] * 4 + [shape.images * shape.rows_per_image]

        def run() -> Tensor:
            tokens_B, at_B, positions_B, cell_B, grid = torch.split(static, counts)
            shared = PoolShared(self._pool, grid.view(shape.images, shape.rows_per_image), cell_B)
            own = OwnStep(kv, at_B, shape.positions)
            return self._decoder.step_rows(tokens_B, positions_B, shared, own)

        if not self._capture:
            return _Captured(static, run)
        # Running a step again writes the same keys and values to the same places, so warming up is harmless.
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARMUP_RUNS):
                run()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        if self._graph_memory is None:
            self._graph_memory = torch.cuda.graph_pool_handle()  # type: ignore[no-untyped-call]
        with torch.cuda.graph(graph, pool=self._graph_memory):
            logits_BV = run()

        def replay() -> Tensor:
            graph.replay()
            return logits_BV

        return _Captured(static, replay)


def power_of_two(number: int) -> int:
    """The smallest one that is not smaller."""
    return 1 << (number - 1).bit_length()
