"""A decode step of fixed shapes, which a GPU can replay as one captured graph.

# L layers, I images, R rows per image, B rows, M key-value heads, G query heads per key-value head, K head width
# P prefix positions, T own positions, V vocabulary

On a GPU, launching the few thousand kernels of a step one by one takes longer than running them. So the number of rows
is rounded up to a power of two, the own positions to a multiple of 64, and the prefixes of the images in flight are
copied into one pool, once per image and never per row. Each combination of these sizes is captured once and then
replayed. Padding rows decode token 0 into slots whose content is not read. On the CPU the same shapes run without a
graph; the tests compare that with the plain step.
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
    """The sizes that a captured step was made for."""

    rows: int
    positions: int
    images: int
    rows_per_image: int


class PrefixPool:
    """Keys and values of the prefixes of the images in flight, (L, I, M, P, K). Each prefix is copied in once."""

    def __init__(self, decoder: SharedPrefixDecoder) -> None:
        self._shape = decoder.kv_shape
        self._held: list[PrefixKv | None] = []
        self.keys = self.values = torch.empty(0)
        self.bias_IP = torch.empty(0)

    def place(self, prefixes: Sequence[PrefixKv]) -> list[int]:
        """Return the pool index of each prefix, after copying in those that are new. Other prefixes may be replaced."""
        # 1. Free the indices of prefixes that are not in flight any more.
        wanted = {id(prefix): prefix for prefix in prefixes}
        for idx, held in enumerate(self._held):
            if held is not None and id(held) not in wanted:
                self._held[idx] = None
        # 2. Enlarge the pool if it has too few indices or positions.
        longest = max(prefix.length for prefix in wanted.values())
        if len(wanted) > len(self._held) or longest > self.bias_IP.shape[-1]:
            self._allocate(power_of_two(max(len(wanted), len(self._held))), longest)
        # 3. Copy the new prefixes to free indices.
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
        # Hide the positions behind the prefix's end.
        self.bias_IP[idx] = 0.0
        self.bias_IP[idx, prefix.length :] = float("-inf")

    def _allocate(self, images: int, positions: int) -> None:
        held, shape = [prefix for prefix in self._held if prefix is not None], self._shape
        size = (shape.num_layers, images, shape.num_kv_heads, positions, shape.head_dim)
        self.keys = self.values = torch.empty(0)  # free the old memory before allocating the new
        self.keys = torch.zeros(size, dtype=shape.dtype, device=shape.device)
        self.values = torch.zeros_like(self.keys)
        self.bias_IP = torch.zeros(images, positions, device=shape.device)
        self._held = [None] * images
        for idx, prefix in enumerate(held):
            self._put(idx, prefix)


class PoolAttention:
    """Attention of rows to the pool. Rows are put onto a grid by image, so that an image's queries are one matmul."""

    def __init__(self, pool: PrefixPool, grid_IR: Tensor, cell_B: Tensor) -> None:
        """Store the grid.

        Args:
            pool: of at least I images.
            grid_IR: the row in each cell; unused cells hold any row.
            cell_B: the cell of each row, as an index into the flat grid.
        """
        self._pool = pool
        self._grid_IR = grid_IR
        self._cell_B = cell_B

    def attend(self, layer_idx: int, q_BMGK: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """Return context (B, M, G, K) and log-sum-exp (B, M, G)."""
        # 1. Put the queries onto the grid; rows and query heads of a key-value head are rows of one matrix.
        images, rows = self._grid_IR.shape
        q_IMRGK = q_BMGK[self._grid_IR].transpose(1, 2)
        _, heads, _, groups, width = q_IMRGK.shape
        # 2. One batched matmul over images and key-value heads.
        context, lse = attend(
            q_IMRGK.reshape(images, heads, rows * groups, width),
            self._pool.keys[layer_idx, :images],
            self._pool.values[layer_idx, :images],
            scale,
            self._pool.bias_IP[:images, None, None],
        )
        # 3. Take each row's result out of its cell.
        context = context.view(q_IMRGK.shape).transpose(1, 2).reshape(images * rows, heads, groups, width)
        lse = lse.view(images, heads, rows, groups).transpose(1, 2).reshape(images * rows, heads, groups)
        return context[self._cell_B], lse[self._cell_B]


@dataclass(slots=True)
class _Captured:
    inputs: Tensor  # rows of int64: tokens, own positions, positions, cells; then the grid
    run: Callable[[], Tensor]


class StaticStep:
    """The decode step in few different shapes; `step` returns the logits of `SharedPrefixDecoder.step_rows`."""

    def __init__(self, decoder: SharedPrefixDecoder, *, capture: bool) -> None:
        """Wrap a decoder.

        Args:
            decoder: on any device.
            capture: True: capture and replay CUDA graphs. False: run the same shapes without a graph.
        """
        self._decoder = decoder
        self._capture = capture
        self._pool = PrefixPool(decoder)
        self._captured: dict[Shape, _Captured] = {}
        self._memory: tuple[int, ...] = ()
        self._graph_memory: Any = None

    @staticmethod
    def slots_for(num_rows: int) -> int:
        """Return the number of slots that a step over `num_rows` rows reads and writes."""
        return power_of_two(num_rows)

    def step(self, rows: Sequence[Row], kv: RowKv) -> Tensor:
        """Run the last token of the rows in slots 0..B-1; return logits (B, V)."""
        # 1. Have the images' prefixes in the pool, and group the rows by image.
        places = self._pool.place([row.prefix for row in rows if row.prefix is not None])
        of_image: dict[int, list[int]] = {}
        for idx, place in enumerate(places):
            of_image.setdefault(place, []).append(idx)
        # 2. Round the sizes up, so that few different shapes occur.
        needed = max(row.length for row in rows) + 1
        shape = Shape(
            rows=power_of_two(len(rows)),
            positions=min(-(-needed // _POSITIONS_STEP) * _POSITIONS_STEP, kv.capacity),
            images=power_of_two(max(places) + 1),
            rows_per_image=power_of_two(max(len(idxs) for idxs in of_image.values())),
        )
        # 3. Collect the integers of the step.
        inputs = self._inputs(rows, of_image, shape)
        # 4. A graph reads the addresses it was captured with: forget all graphs when keys or values have moved.
        memory = (kv.keys.data_ptr(), kv.values.data_ptr(), self._pool.keys.data_ptr(), self._pool.values.data_ptr())
        if memory != self._memory:
            self._captured.clear()
            self._memory = memory
        # 5. Capture this shape if it is new, then replay it with the current integers.
        if shape not in self._captured:
            self._captured[shape] = self._prepare(shape, inputs, kv)
        captured = self._captured[shape]
        captured.inputs.copy_(inputs)
        return captured.run()[: len(rows)]

    def _inputs(self, rows: Sequence[Row], of_image: dict[int, list[int]], shape: Shape) -> Tensor:
        """Return all integers of a step in one tensor, so that they are copied to the device together."""
        padding = shape.rows - len(rows)
        # Row idx is put into the next free cell of its image's line of the grid; padding rows read cell 0.
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
        """Create the step of one shape: its input tensor, and the call that runs it on that tensor's values."""
        static = inputs.to(self._decoder.device)
        counts = [shape.rows] * 4 + [shape.images * shape.rows_per_image]

        def run() -> Tensor:
            tokens_B, at_B, positions_B, cell_B, grid = torch.split(static, counts)
            to_prefix = PoolAttention(self._pool, grid.view(shape.images, shape.rows_per_image), cell_B)
            own = OwnStep(kv, at_B, shape.positions)
            return self._decoder.step_rows(tokens_B, positions_B, to_prefix, own)

        if not self._capture:
            return _Captured(static, run)
        # Warm up on a side stream, as CUDA graphs require. A repeated step writes the same keys and values to the same
        # positions, so it changes nothing.
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARMUP_RUNS):
                run()
        torch.cuda.current_stream().wait_stream(stream)
        # Capture; all graphs allocate from one memory pool, because they never run at the same time.
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
    """Return the smallest power of two that is not smaller than `number`."""
    return 1 << (number - 1).bit_length()
