"""The running batch of one priority: slots for rows, which are prefilled and then decoded together.

A row that ends frees its slot, and the last row moves into it. The scheduler decides which rows are admitted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from osprey_model.engine.decoding.attention import OwnStep, PrefixSpans
from osprey_model.engine.decoding.decoder import NewRow, SharedPrefixDecoder
from osprey_model.engine.decoding.kv_cache import RowKv
from osprey_model.engine.decoding.rows import Row, pick
from osprey_model.engine.decoding.static_step import StaticStep

_CAPACITY_STEP = 16


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits of a running batch. They bound its memory independently of the requests.

    Attributes:
        rows: most questions that are decoded together.
        positions: most own positions: rows times those of the longest row (prompt behind the image prefix, and answer).
        prefill_positions: most prompt positions in one pass.
        images: most images whose prefixes are held at the same time.
    """

    rows: int = 96
    positions: int = 8192
    prefill_positions: int = 2048
    images: int = 8


@dataclass(frozen=True, slots=True)
class SharedPromptPrefix:
    """Keys and values (L, M, T, K) of the prompt positions that several rows have in common behind an image prefix."""

    keys: Tensor
    values: Tensor

    @property
    def length(self) -> int:
        """Number of positions, T."""
        return int(self.keys.shape[2])


@dataclass(frozen=True, slots=True)
class Entry:
    """A row to admit, with the embeddings (S, D) of its prompt behind the shared prompt prefix."""

    row: Row
    embeds_SD: Tensor
    prompt_prefix: SharedPromptPrefix | None = None


class RunningBatch:
    """Slots for rows. `admit` prefills new rows, `step` decodes one token of every row."""

    def __init__(
        self, decoder: SharedPrefixDecoder, eos_token_id: int, budget: Budget, *, static: StaticStep | None = None
    ) -> None:
        self.budget = budget
        self.rows: list[Row] = []  # in slot order
        self.kv = RowKv(decoder.kv_shape, budget.positions)
        self._decoder = decoder
        self._eos_token_id = eos_token_id
        self._static = static
        self._prefix_spans: PrefixSpans | None = None  # of the current rows; None after the rows have changed

    def fits(self, num_new: int, capacity: int) -> bool:
        """Return whether `num_new` more rows, the longest of this capacity, keep the budget. One row always does."""
        num_rows = len(self.rows) + num_new
        longest = max([rounded(capacity), *(rounded(row.capacity) for row in self.rows)])
        return num_rows <= 1 or (num_rows <= self.budget.rows and num_rows * longest <= self.budget.positions)

    @torch.inference_mode()
    def admit(self, entries: Sequence[Entry]) -> list[Row]:
        """Prefill new rows and decode the first token of each; return the rows that ended with it."""
        # 1. Reserve slots behind the rows that run.
        first = len(self.rows)
        num_rows = first + len(entries)
        longest = max(rounded(row.capacity) for row in (*self.rows, *(entry.row for entry in entries)))
        slots = num_rows if self._static is None else self._static.slots_for(num_rows)
        self.kv.reserve(slots, longest, num_used=first)
        # 2. Copy every shared prompt prefix into the slots of its rows, one write per prefix.
        self._copy_prompt_prefixes(entries, first)
        # 3. Run the rest of all prompts in one pass; the logits are those of each prompt's last position.
        new = [
            NewRow(entry.embeds_SD, entry.row.prefix, 0 if entry.prompt_prefix is None else entry.prompt_prefix.length)
            for entry in entries
        ]
        logits_BV = self._decoder.logits(self._decoder.prefill_rows(new, self.kv, first))
        # 4. Choose the first tokens; the rows join the batch.
        rows = [entry.row for entry in entries]
        for row, prompt in zip(rows, new, strict=True):
            row.length = prompt.num_filled + prompt.embeds_SD.shape[0]
        pick(rows, logits_BV, self._eos_token_id)
        self.rows.extend(rows)
        self._prefix_spans = None
        # 5. A row may end with its first token.
        return self._remove_ended()

    @torch.inference_mode()
    def step(self) -> list[Row]:
        """Decode one token of every row; return the rows that ended."""
        if not self.rows:
            return []
        # 1. Run the last token of every row: in fixed shapes where there is a static step. That one needs a prefix.
        if self._static is not None and all(row.prefix is not None for row in self.rows):
            logits_BV = self._static.step(self.rows, self.kv)
        else:
            logits_BV = self._plain_step()
        # 2. That token's keys and values are now in the cache.
        for row in self.rows:
            row.length += 1
        # 3. Choose the next tokens.
        pick(self.rows, logits_BV, self._eos_token_id)
        return self._remove_ended()

    @torch.inference_mode()
    def cancel(self, unwanted: Sequence[Row]) -> None:
        """End rows whose answers are no longer needed, and free their slots."""
        for row in unwanted:
            row.ended = True
        self._remove_ended()

    @torch.inference_mode()
    def prefill_prompt_prefixes(self, prompts: Sequence[NewRow]) -> list[SharedPromptPrefix]:
        """Run prompt beginnings that several rows will have in common, in a cache of their own."""
        rows = RowKv(self._decoder.kv_shape, max_positions=0)
        rows.reserve(len(prompts), max(prompt.embeds_SD.shape[0] for prompt in prompts), num_used=0)
        self._decoder.prefill_rows(prompts, rows, 0)
        lengths = [prompt.embeds_SD.shape[0] for prompt in prompts]
        return [SharedPromptPrefix(rows.keys[:, b, :, :n], rows.values[:, b, :, :n]) for b, n in enumerate(lengths)]

    def _copy_prompt_prefixes(self, entries: Sequence[Entry], first_slot: int) -> None:
        slots_of: dict[int, tuple[SharedPromptPrefix, list[int]]] = {}
        for slot, entry in enumerate(entries, start=first_slot):
            if entry.prompt_prefix is not None:
                slots_of.setdefault(id(entry.prompt_prefix), (entry.prompt_prefix, []))[1].append(slot)
        for prompt_prefix, slots in slots_of.values():
            at_B = torch.tensor(slots, device=self._decoder.device)
            self.kv.keys[:, at_B, :, : prompt_prefix.length] = prompt_prefix.keys[:, None]
            self.kv.values[:, at_B, :, : prompt_prefix.length] = prompt_prefix.values[:, None]

    def _plain_step(self) -> Tensor:
        """Logits (B, V) of all rows, in the shapes that the rows have."""
        device = self._decoder.device
        if self._prefix_spans is None:
            self._prefix_spans = PrefixSpans.of_rows([row.prefix for row in self.rows], device)
        # One copy to the device for all integers of the step.
        inputs = [(row.next_token, row.length, row.position) for row in self.rows]
        tokens_B, at_B, positions_B = torch.tensor(inputs, device=device).unbind(dim=1)
        own = OwnStep(self.kv, at_B, max(row.length for row in self.rows) + 1)
        return self._decoder.step_rows(tokens_B, positions_B, self._prefix_spans, own)

    def _remove_ended(self) -> list[Row]:
        """Remove and return the ended rows; the last rows move into their slots, so that rows lie in slots 0..n-1."""
        ended = [row for row in self.rows if row.ended]
        if not ended:
            return []
        slot = 0
        while slot < len(self.rows):
            if not self.rows[slot].ended:
                slot += 1
                continue
            # The slot is free: take the last row out of the batch.
            last = self.rows.pop()
            if slot < len(self.rows):  # it was not this slot's own row
                if last.ended:
                    continue  # look at the same slot again, with the next last row
                self.kv.move(len(self.rows), slot, last.length)
                self.rows[slot] = last
                slot += 1
        self._prefix_spans = None
        return ended


def rounded(capacity: int) -> int:
    """Round a number of own positions up to a multiple of 16, so that rows of similar lengths need no new memory."""
    return -(-capacity // _CAPACITY_STEP) * _CAPACITY_STEP
