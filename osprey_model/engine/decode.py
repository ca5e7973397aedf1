"""The greedy loop over a batch of rows: a row that ends leaves the batch and its answer leaves the engine."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from osprey_model.engine.choices import ChoiceWalk
from osprey_model.engine.decoder import SharedPrefixDecoder
from osprey_model.engine.kv_cache import PrefixKv


@dataclass(slots=True)
class Row:
    """One prompt being answered.

    Attributes:
        suffix_SD: embeddings behind the shared prefix.
        walk: the closed list it must answer from, None for free text.
        token_ids: what was decoded so far, without the end token.
        token_logprobs: the model's log-probability per decoded token, end token included.
        choice_mass: the smallest share of probability that the allowed tokens had at any step.
    """

    suffix_SD: Tensor
    max_new_tokens: int
    walk: ChoiceWalk | None = None
    token_ids: list[int] = field(default_factory=list)
    token_logprobs: list[float] = field(default_factory=list)
    choice_mass: float = 1.0
    ended: bool = False

    def confidence(self) -> float:
        """See `Answer.confidence`."""
        if self.walk is not None:
            return self.walk.probability
        if not self.token_logprobs:
            return 0.0
        return math.exp(sum(self.token_logprobs) / len(self.token_logprobs))


@torch.inference_mode()
def decode_rows(
    decoder: SharedPrefixDecoder,
    prefix: PrefixKv | None,
    rows: Sequence[Row],
    *,
    eos_token_id: int,
    on_end: Callable[[int], None],
) -> None:
    """Answer all rows; `on_end(row index)` is called as each one ends.

    Deterministic: greedy, ties go to the lower id.
    """
    if not rows:
        return
    device = decoder.device
    start = 0 if prefix is None else prefix.length
    lengths = [row.suffix_SD.shape[0] for row in rows]
    longest = max(lengths)
    pads_B = torch.tensor([longest - length for length in lengths], device=device)
    cache = decoder.new_rows(pads_B, longest + max(row.max_new_tokens for row in rows))
    embeds_BSD = torch.stack(
        [torch.nn.functional.pad(row.suffix_SD, (0, 0, longest - row.suffix_SD.shape[0], 0)) for row in rows]
    )
    # Padding sits on the left at clamped positions nobody attends to.
    positions_BS = (start + torch.arange(longest, device=device)[None] - pads_B[:, None]).clamp_min(0)
    logits_BV = decoder.step(embeds_BSD, positions_BS, prefix, cache)
    next_position_B = positions_BS[:, -1] + 1
    active = list(range(len(rows)))
    while True:
        tokens = _pick([rows[idx] for idx in active], logits_BV, eos_token_id)
        for idx in active:
            if rows[idx].ended:
                on_end(idx)
        kept = [place for place, idx in enumerate(active) if not rows[idx].ended]
        if not kept:
            return
        if len(kept) < len(active):
            kept_B = torch.tensor(kept, device=device)
            cache.keep(kept_B)
            next_position_B = next_position_B[kept_B]
            active = [active[place] for place in kept]
            tokens = [tokens[place] for place in kept]
        embeds_B1D = decoder.embed(torch.tensor(tokens, device=device))[:, None]
        logits_BV = decoder.step(embeds_B1D, next_position_B[:, None], prefix, cache)
        next_position_B = next_position_B + 1


def _pick(rows: Sequence[Row], logits_BV: Tensor, eos_token_id: int) -> list[int]:
    """One token per row, noted in the row; sets `ended`."""
    logprobs_BV = logits_BV.log_softmax(dim=-1)
    best_B = logprobs_BV.max(dim=-1)
    best_logprobs, best_tokens = best_B.values.tolist(), best_B.indices.tolist()
    closed = [place for place, row in enumerate(rows) if row.walk is not None]
    offers = {place: walk.allowed() for place in closed if (walk := rows[place].walk) is not None}
    offered = _gather(logprobs_BV, offers)
    tokens = []
    for place, row in enumerate(rows):
        if row.walk is None:
            token, logprob = best_tokens[place], best_logprobs[place]
            row.token_logprobs.append(logprob)
            row.ended = token == eos_token_id or len(row.token_ids) + 1 >= row.max_new_tokens
            if token != eos_token_id:
                row.token_ids.append(token)
        else:
            logprobs = offered[place]
            mass = [math.exp(logprob) for logprob in logprobs]
            total = sum(mass)
            # Every allowed token may be so improbable that its probability underflows: compare from the top.
            highest = max(logprobs)
            shares = [math.exp(logprob - highest) for logprob in logprobs]
            scale = sum(shares)
            token = row.walk.take(offers[place], [share / scale for share in shares])
            row.choice_mass = min(row.choice_mass, total)
            row.token_logprobs.append(logprobs[offers[place].index(token)])
            row.token_ids.append(token)
            row.ended = row.walk.done or len(row.token_ids) >= row.max_new_tokens
        tokens.append(token)
    return tokens


def _gather(logprobs_BV: Tensor, offers: dict[int, list[int]]) -> dict[int, list[float]]:
    """Log-probabilities of the offered tokens of some rows, in one read from the device."""
    if not offers:
        return {}
    places = [place for place, tokens in offers.items() for _ in tokens]
    tokens = [token for offer in offers.values() for token in offer]
    flat = logprobs_BV[places, tokens].tolist()
    gathered, at = {}, 0
    for place, offer in offers.items():
        gathered[place] = flat[at : at + len(offer)]
        at += len(offer)
    return gathered
