"""The shared-prefix decoder gives the logits of the plain model on whole sequences."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from osprey_model.config import OspreyConfig
from osprey_model.engine.decoding.attention import OwnStep, PrefixSpans
from osprey_model.engine.decoding.decoder import NewRow, SharedPrefixDecoder
from osprey_model.engine.decoding.kv_cache import PrefixKv, RowKv
from osprey_model.weights.build import build_osprey

WIDTH = 32


@pytest.mark.parametrize("num_kv_heads", [4, 2, 1])
@pytest.mark.parametrize("prefix_lengths", [(0, 0, 0), (9, 9, 9), (9, 80, 9), (9, 0, 80)])
@torch.no_grad()
def test_logits_of_packed_rows_behind_their_prefixes(
    num_kv_heads: int, prefix_lengths: tuple[int, ...], tiny_config: OspreyConfig
) -> None:
    """Rows of lengths 5, 2 and 70 behind one, two or no prefixes, and three steps, have the logits of whole sequences.

    This holds also for grouped key-value heads, and for lengths below and above that of the fused kernel.
    """
    torch.manual_seed(0)
    model = build_osprey(dataclasses.replace(tiny_config, num_key_value_heads=num_kv_heads)).eval()
    decoder = SharedPrefixDecoder(model)
    of_length = {length: torch.randn(length, WIDTH) for length in set(prefix_lengths)}
    prefixes: dict[int, PrefixKv | None] = {
        length: decoder.prefill_prefixes(embeds[None])[0] if length else None for length, embeds in of_length.items()
    }
    lengths = (5, 2, 70)
    sequences = [torch.randn(length + 3, WIDTH) for length in lengths]
    expected = [
        model(inputs_embeds=torch.cat([of_length[behind], row])[None]).logits[0, behind:]
        for behind, row in zip(prefix_lengths, sequences, strict=True)
    ]
    rows = RowKv(decoder.kv_shape, max_positions=10_000)
    rows.reserve(3, 80, num_used=0)
    new = [
        NewRow(row[:length], prefixes[behind])
        for behind, row, length in zip(prefix_lengths, sequences, lengths, strict=True)
    ]
    logits = decoder.logits(decoder.prefill_rows(new, rows, 0))
    for step in range(4):
        for idx, row_logits in enumerate(logits):
            torch.testing.assert_close(row_logits, expected[idx][lengths[idx] - 1 + step], atol=1e-5, rtol=1e-4)
        if step == 3:
            break
        at_B = torch.tensor(lengths) + step
        # `step_rows` takes tokens; these rows are made of arbitrary embeddings.
        embeds_BD = torch.stack([row[at] for row, at in zip(sequences, at_B.tolist(), strict=True)])
        decoder.embed = lambda _tokens, embeds_BD=embeds_BD: embeds_BD  # type: ignore[method-assign]
        shared = PrefixSpans.of_rows([prefixes[behind] for behind in prefix_lengths], torch.device("cpu"))
        own = OwnStep(rows, at_B, int(at_B.max()) + 1)
        logits = decoder.step_rows(at_B, at_B + torch.tensor(prefix_lengths), shared, own)


@torch.no_grad()
def test_rows_behind_a_shared_prompt_prefix(tiny_config: OspreyConfig) -> None:
    """A prompt prefix that is run once and copied into two slots gives the logits of each whole sequence."""
    torch.manual_seed(0)
    model = build_osprey(tiny_config).eval()
    decoder = SharedPrefixDecoder(model)
    prefix_PD, shared_SD = torch.randn(9, WIDTH), torch.randn(4, WIDTH)
    tails = [torch.randn(3, WIDTH), torch.randn(6, WIDTH)]
    (prefix,) = decoder.prefill_prefixes(prefix_PD[None])
    rows = RowKv(decoder.kv_shape, max_positions=1000)
    rows.reserve(2, 16, num_used=0)
    decoder.prefill_rows([NewRow(shared_SD, prefix)], rows, 0)
    rows.move(0, 1, 4)
    logits = decoder.logits(decoder.prefill_rows([NewRow(tail, prefix, num_filled=4) for tail in tails], rows, 0))
    for tail, row_logits in zip(tails, logits, strict=True):
        whole = model(inputs_embeds=torch.cat([prefix_PD, shared_SD, tail])[None]).logits[0, -1]
        torch.testing.assert_close(row_logits, whole, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_prefixes_prefilled_together(tiny_config: OspreyConfig) -> None:
    """The prefixes of two images in one batch have the keys and values of each alone."""
    torch.manual_seed(0)
    decoder = SharedPrefixDecoder(build_osprey(tiny_config).eval())
    embeds = torch.randn(2, 7, WIDTH)
    for together, alone in zip(decoder.prefill_prefixes(embeds), embeds, strict=True):
        (kv,) = decoder.prefill_prefixes(alone[None])
        for left, right in zip((*together.keys, *together.values), (*kv.keys, *kv.values), strict=True):
            torch.testing.assert_close(left, right, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_a_changed_weight_counts(tiny_config: OspreyConfig) -> None:
    """Packed copies follow the model when a weight is changed in place or replaced."""
    torch.manual_seed(0)
    model = build_osprey(tiny_config).eval()
    decoder = SharedPrefixDecoder(model)
    hidden = torch.randn(2, WIDTH)
    before = decoder.logits(hidden)
    model.lm_head.weight[5] += 1.0
    in_place = decoder.logits(hidden)
    torch.testing.assert_close(in_place, model.lm_head(model.model.norm(hidden)), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(in_place, before)
    model.lm_head = torch.nn.Linear(WIDTH, tiny_config.vocab_size, bias=False)
    torch.testing.assert_close(decoder.logits(hidden), model.lm_head(model.model.norm(hidden)), atol=1e-5, rtol=1e-4)
