"""A row is a prompt with the answer decoded so far. `pick` chooses the next token of every row.

# B rows of a step, V vocabulary
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from osprey_model.engine.decoding.choices import ChoiceWalk
from osprey_model.engine.decoding.kv_cache import PrefixKv


@dataclass(slots=True, eq=False)
class Row:
    """One prompt that is being answered.

    Attributes:
        prefix: image prefix the row stands behind; None: it stands behind nothing.
        num_prompt: own positions of the prompt, behind the prefix.
        max_new_tokens: limit of decoded tokens.
        walk: walk through the choices the answer must be from; None for free text.
        token_ids: tokens decoded so far, without the end token.
        token_logprobs: the model's log-probability of each decoded token, end token included.
        choice_mass: the smallest total probability that the allowed tokens had at any step.
        ended: whether the answer is complete or cancelled.
        length: own positions whose keys and values are computed.
        next_token: the last decoded token, which has not been run through the layers yet.
    """

    prefix: PrefixKv | None
    num_prompt: int
    max_new_tokens: int
    walk: ChoiceWalk | None = None
    token_ids: list[int] = field(default_factory=list)
    token_logprobs: list[float] = field(default_factory=list)
    choice_mass: float = 1.0
    ended: bool = False
    length: int = 0
    next_token: int = -1

    @property
    def capacity(self) -> int:
        """Most own positions that the row can need; the last token is never run."""
        return self.num_prompt + max(self.max_new_tokens - 1, 0)

    @property
    def position(self) -> int:
        """Position of the next token in the whole sequence."""
        return self.length + (0 if self.prefix is None else self.prefix.length)

    def confidence(self) -> float:
        """Return the confidence of the answer; see `Answer.confidence`."""
        if self.walk is not None:
            return self.walk.probability
        if not self.token_logprobs:
            return 0.0
        return math.exp(sum(self.token_logprobs) / len(self.token_logprobs))


def pick(rows: Sequence[Row], logits_BV: Tensor, eos_token_id: int) -> None:
    """Choose the most probable token of each row and store it there; set `ended`. Of equal tokens the lower id wins.

    Args:
        rows: of a step.
        logits_BV: of these rows.
        eos_token_id: ends free text.
    """
    logprobs_BV = logits_BV.log_softmax(dim=-1)
    free = [place for place, row in enumerate(rows) if row.walk is None]
    if free:
        of_free = logprobs_BV if len(free) == len(rows) else logprobs_BV[free]
        best_B = of_free.max(dim=-1)
        for place, token, logprob in zip(free, best_B.indices.tolist(), best_B.values.tolist(), strict=True):
            _take_free(rows[place], token, logprob, eos_token_id)
    if len(free) < len(rows):
        _take_closed(rows, logprobs_BV)


def _take_free(row: Row, token: int, logprob: float, eos_token_id: int) -> None:
    row.token_logprobs.append(logprob)
    row.next_token = token
    row.ended = token == eos_token_id or len(row.token_ids) + 1 >= row.max_new_tokens
    if token != eos_token_id:
        row.token_ids.append(token)


def _take_closed(rows: Sequence[Row], logprobs_BV: Tensor) -> None:
    """Choose the token of every row with a walk; the probabilities of all allowed tokens are read together."""
    closed = [(place, row, row.walk, row.walk.allowed()) for place, row in enumerate(rows) if row.walk is not None]
    offers = [offer for *_, offer in closed]
    at = np.concatenate([place * logprobs_BV.shape[1] + offer for place, _, _, offer in closed])
    flat = logprobs_BV.flatten()[torch.from_numpy(at).to(logprobs_BV.device)].double().cpu().numpy()
    bounds = np.cumsum([len(offer) for offer in offers])[:-1]
    for (_, row, walk, offer), logprobs in zip(closed, np.split(flat, bounds), strict=True):
        # Relative to the largest: every allowed token may be so improbable that its probability underflows.
        shares = np.exp(logprobs - logprobs.max())
        token = walk.take(offer, shares / shares.sum())
        row.choice_mass = min(row.choice_mass, float(np.exp(logprobs).sum()))
        row.token_logprobs.append(float(logprobs[int(np.flatnonzero(offer == token)[0])]))
        row.token_ids.append(token)
        row.next_token = token
        row.ended = walk.done or len(row.token_ids) >= row.max_new_tokens
