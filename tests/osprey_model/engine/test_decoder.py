"""The shared-prefix decoder against the plain model on whole sequences."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from osprey_model.build import build_osprey
from osprey_model.config import OspreyConfig
from osprey_model.engine.decoder import SharedPrefixDecoder


@pytest.mark.parametrize("num_kv_heads", [4, 2, 1])
@pytest.mark.parametrize("prefix_length", [0, 9])
@torch.inference_mode()
def test_logits_of_padded_rows_behind_a_prefix(
    num_kv_heads: int, prefix_length: int, tiny_config: OspreyConfig
) -> None:
    """Rows of lengths 5, 2 and 3, then two more steps, then one row leaves: the logits of each whole sequence.

    With grouped key-value heads too, and without any prefix.
    """
    torch.manual_seed(0)
    model = build_osprey(dataclasses.replace(tiny_config, num_key_value_heads=num_kv_heads)).eval()
    decoder = SharedPrefixDecoder(model)
    prefix_PD = torch.randn(prefix_length, tiny_config.hidden_size)
    rows = [torch.randn(length + 3, tiny_config.hidden_size) for length in (5, 2, 3)]
    expected = [model(inputs_embeds=torch.cat([prefix_PD, row])[None]).logits[0, prefix_length:] for row in rows]

    prefix = decoder.prefill(prefix_PD) if prefix_length else None
    lengths = torch.tensor([5, 2, 3])
    pads = 5 - lengths
    cache = decoder.new_rows(pads, capacity=8)
    block = torch.stack(
        [torch.cat([torch.full((int(pad), 32), 9.0), row[:n]]) for pad, row, n in zip(pads, rows, lengths, strict=True)]
    )
    positions = (prefix_length + torch.arange(5)[None] - pads[:, None]).clamp_min(0)
    logits = decoder.step(block, positions, prefix, cache)
    for idx, row_logits in enumerate(logits):
        torch.testing.assert_close(row_logits, expected[idx][lengths[idx] - 1], atol=1e-5, rtol=1e-4)
    alive = [0, 1, 2]
    for step in range(3):
        if step == 2:
            cache.keep(torch.tensor([0, 2]))
            alive = [0, 2]
        new = torch.stack([rows[idx][lengths[idx] + step] for idx in alive])[:, None]
        at = torch.tensor([[prefix_length + int(lengths[idx]) + step] for idx in alive])
        logits = decoder.step(new, at, prefix, cache)
        for idx, row_logits in zip(alive, logits, strict=True):
            torch.testing.assert_close(row_logits, expected[idx][lengths[idx] + step], atol=1e-5, rtol=1e-4)
