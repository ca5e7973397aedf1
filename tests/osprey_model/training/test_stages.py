"""Each stage learns a handful of samples and changes only what its row names."""

from __future__ import annotations

import hashlib

import pytest
import torch
from torch import nn

from osprey_model.config import IGNORE_INDEX
from osprey_model.data.collate import Batch, Sample, collate
from osprey_model.data.conversation import LabeledIds
from osprey_model.modeling.osprey import OspreyForCausalLM
from osprey_model.training.stages import PREFIXES, STAGES, build_optimizer, freeze_for


def three_samples(model: OspreyForCausalLM) -> Batch:
    """Three images with one region each and a different answer."""
    draw = torch.Generator().manual_seed(1)
    region = [model.sizes.mask_token_id, model.sizes.mask_token_id + 1]
    samples = []
    for idx in range(3):
        ids = [1, -200, 5, *region, 7, 10 + idx, 2]
        masks = torch.zeros(1, 64, 64)
        masks[0, idx * 16 : idx * 16 + 24, 8:48] = 1
        labels = [IGNORE_INDEX] * 6 + ids[6:]
        samples.append(Sample(LabeledIds(ids, labels), torch.randn(3, 64, 64, generator=draw), masks))
    return collate(samples, pad_token_id=0)


def hashes(model: nn.Module) -> dict[str, str]:
    """SHA-256 of every parameter."""
    return {k: hashlib.sha256(v.detach().numpy().tobytes()).hexdigest() for k, v in model.named_parameters()}


@pytest.mark.parametrize("number", STAGES)
def test_stage_learns_and_changes_only_its_parameters(tiny_model: OspreyForCausalLM, number: int) -> None:
    """The loss of three samples falls; the tower and every part the row does not name keep their hash."""
    stage = STAGES[number]
    # Fresh weights of std 0.02 let almost no context reach the logits: a frozen decoder could not be steered.
    with torch.no_grad():
        for name, parameter in tiny_model.named_parameters():
            if name.startswith(PREFIXES["decoder"]) and parameter.ndim == 2:
                parameter.mul_(10)
    batch = three_samples(tiny_model)
    before = hashes(tiny_model)
    names = freeze_for(tiny_model, stage)
    optimizer = build_optimizer(tiny_model, stage, learning_rate=1e-2)
    losses = []
    for _ in range(100):
        loss = tiny_model(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    changed = {name for name, digest in hashes(tiny_model).items() if digest != before[name]}
    assert changed <= set(names)
    for part in stage.trains:
        assert any(name.startswith(PREFIXES[part]) for name in changed)
    assert losses[-1] < 0.7 * losses[0]


def test_model_without_the_part_is_refused() -> None:
    """A stage that would train nothing of a part it names is an error."""
    with pytest.raises(ValueError, match="mask_extractor"):
        freeze_for(nn.Linear(2, 2), STAGES[2])
