"""Rows of one priority, decoded together: a row that ends leaves its slot, the last row takes it over.

A lane holds what runs; `session.py` decides what comes in.
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
    """What bounds the memory of a lane, whatever is asked.

    Attributes:
        rows: questions decoded together.
        positions: rows times the longest row's own positions (prompt behind the prefix and answer).
        prefill_positions: prompt positions run in one pass.
        images: whose prefixes are held at a time.
    """

    rows: int = 96
    positions: int = 8192
    prefill_positions: int = 2048
    images: int = 8


@dataclass(frozen=True, slots=True)
class Lead:
    """Keys and values (L, M, T, K) of words that several rows have in common behind their prefix."""

    keys: Tensor
    values: Tensor

    @property
    def length(self) -> int:
        """Positions T."""
        return int(self.keys.shape[2])


@dataclass(frozen=True, slots=True)
class Entry:
    """A row about to be run: its embeddings (S, D) behind its lead."""

    row: Row
    embeds_SD: Tensor
    lead: Lead | None = None


class Lane:
    """Slots for rows, and the two things that can be done: `admit` and `step`."""

    def __init__(
        self, decoder: SharedPrefixDecoder, eos_token_id: int, budget: Budget, *, static: StaticStep | None = None
    ) -> None:
        self.budget = budget
        self.rows: list[Row] = []  # in slot order
        self.kv = RowKv(decoder.kv_shape, budget.positions)
        self._decoder = decoder
        self._eos_token_id = eos_token_id
        self._static = static
        self._shared: PrefixSpans | None = None

    def fits(self, num_new: int, capacity: int) -> bool:
        """Whether so many more rows, the longest of this capacity, stay within the budget; one always does."""
        num_rows = len(self.rows) + num_new
        longest = max([rounded(capacity), *(rounded(row.capacity) for row in self.rows)])
        return num_rows <= 1 or (num_rows <= self.budget.rows and num_rows * longest <= self.budget.positions)

    @torch.inference_mode()
    def admit(self, entries: Sequence[Entry]) -> list[Row]:
        """Run the prompts of new rows and decode the first token of each; returns the rows that ended with it."""
        first = len(self.rows)
        num_rows = first + len(entries)
        longest = max(rounded(row.capacity) for row in (*self.rows, *(entry.row for entry in entries)))
        slots = num_rows if self._static is None else self._static.slots_for(num_rows)
        self.kv.reserve(slots, longest, num_used=first)
        by_lead: dict[int, list[int]] = {}
        for idx, entry in enumerate(entries):
            by_lead.setdefault(id(entry.lead), []).append(idx)
        for idxs in by_lead.values():
            lead = entries[idxs[0]].lead
            if lead is not None:
                at_B = torch.tensor(idxs, device=self._decoder.device) + first
                self.kv.keys[:, at_B, :, : lead.length] = lead.keys[:, None]
                self.kv.values[:, at_B, :, : lead.length] = lead.values[:, None]
        new = [
            NewRow(entry.embeds_SD, entry.row.prefix, 0 if entry.lead is None else entry.lead.length)
            for entry in entries
        ]
        logits_BV = self._decoder.logits(self._decoder.prefill_rows(new, self.kv, first))
        rows = [entry.row for entry in entries]
        for row, prompt in zip(rows, new, strict=True):
            row.length = prompt.lead + prompt.embeds_SD.shape[0]
        pick(rows, logits_BV, self._eos_token_id)
        self.rows.extend(rows)
        self._shared = None
        return self._let_go()

    @torch.inference_mode()
    def step(self) -> list[Row]:
        """Decode one token of every row; returns the rows that ended."""
        if not self.rows:
            return []
        if self._static is not None and all(row.prefix is not None for row in self.rows):
            logits_BV = self._static.step(self.rows, self.kv)
        else:
            device = self._decoder.device
            if self._shared is None:
                self._shared = PrefixSpans.of_rows([row.prefix for row in self.rows], device)
            inputs = [(row.next_token, row.length, row.position) for row in self.rows]
            tokens_B, at_B, positions_B = torch.tensor(inputs, device=device).unbind(dim=1)
            own = OwnStep(self.kv, at_B, max(row.length for row in self.rows) + 1)
            logits_BV = self._decoder.step_rows(tokens_B, positions_B, self._shared, own)
        for row in self.rows:
            row.length += 1
        pick(self.rows, logits_BV, self._eos_token_id)
        return self._let_go()

    @torch.inference_mode()
    def drop(self, unwanted: Sequence[Row]) -> None:
        """End rows whose answers nobody waits for."""
        for row in unwanted:
            row.ended = True
        self._let_go()

    @torch.inference_mode()
    def make_leads(self, prompts: Sequence[NewRow]) -> list[Lead]:
        """Run words that rows to come have in common."""
        rows = RowKv(self._decoder.kv_shape, max_positions=0)
        rows.reserve(len(prompts), max(prompt.embeds_SD.shape[0] for prompt in prompts), num_used=0)
        self._decoder.prefill_rows(prompts, rows, 0)
        lengths = [prompt.embeds_SD.shape[0] for prompt in prompts]
        return [Lead(rows.keys[:, b, :, :n], rows.values[:, b, :, :n]) for b, n in enumerate(lengths)]

    def _let_go(self) -> list[Row]:
        """Take ended rows out; the last rows fill their slots, so that the others lie in 0..n-1."""
        ended = [row for row in self.rows if row.ended]
        if not ended:
            return []
        slot = 0
        while slot < len(self.rows):
            if not self.rows[slot].ended:
                slot += 1
                continue
            last = self.rows.pop()
            if slot < len(self.rows):
                if last.ended:
                    continue
                self.kv.move(len(self.rows), slot, last.length)
                self.rows[slot] = last
                slot += 1
        self._shared = None
        return ended


def rounded(capacity: int) -> int:
    """Own positions are allocated in steps, so that rows of similar lengths need no new memory."""
    return -(-capacity // _CAPACITY_STEP) * _CAPACITY_STEP
