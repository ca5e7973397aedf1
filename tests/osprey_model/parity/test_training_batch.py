"""One padded training batch against the reference: loss, gradients, two short AdamW runs."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from osprey_model.modeling.osprey import OspreyForCausalLM


@pytest.fixture(scope="module")
def expected(golden_dir: Path) -> dict[str, Any]:
    return json.loads((golden_dir / "cases" / "train_batch.json").read_text())


@pytest.fixture(scope="module")
def tensors(golden_dir: Path) -> dict[str, Tensor]:
    return load_file(golden_dir / "cases" / "train_batch.safetensors")


@pytest.fixture
def model(golden_model: OspreyForCausalLM) -> OspreyForCausalLM:
    """A copy of the model in which everything but the tower is trained."""
    trained = copy.deepcopy(golden_model)
    trained.requires_grad_(True)
    trained.model.vision_tower.requires_grad_(False)
    return trained


def masks_of(tensors: dict[str, Tensor]) -> list[Tensor | None]:
    return [tensors.get(f"masks.{idx}") for idx in range(len(tensors["input_ids"]))]


def batch_loss(model: OspreyForCausalLM, tensors: dict[str, Tensor]) -> Tensor:
    return model(
        tensors["input_ids"],
        attention_mask=tensors["attention_mask"],
        images=tensors["images"],
        masks=masks_of(tensors),
        labels=tensors["labels"],
    ).loss


def test_merged_labels_mask_and_embeddings(golden_model: OspreyForCausalLM, tensors: dict[str, Tensor]) -> None:
    """The splice of a padded batch has the reference's labels, attention mask, and embeddings at real positions."""
    batch = golden_model.embed_batch(
        tensors["input_ids"],
        tensors["images"],
        masks_of(tensors),
        attention_mask=tensors["attention_mask"],
        labels=tensors["labels"],
    )
    real = tensors["merged_attention_mask"]
    assert torch.equal(batch.attention_mask_BT, real)
    assert torch.equal(batch.labels_BT[real], tensors["merged_labels"][real])
    torch.testing.assert_close(batch.inputs_embeds_BTD[real], tensors["merged_inputs_embeds"][real], atol=2e-5, rtol=0)


def test_loss_and_gradients(model: OspreyForCausalLM, tensors: dict[str, Tensor], expected: dict[str, Any]) -> None:
    """The loss equals the reference's to 1e-4, every gradient's norm to a thousandth, stored gradients by value."""
    loss = batch_loss(model, tensors)
    assert loss.item() == pytest.approx(expected["loss"], abs=1e-4)
    loss.backward()
    parameters = dict(model.named_parameters())
    got = {name: parameters[name].grad.norm().item() for name in expected["grad_norm"]}
    assert got == pytest.approx(expected["grad_norm"], rel=1e-3)
    for name in (name for name in tensors if name.startswith("grad.")):
        torch.testing.assert_close(parameters[name.removeprefix("grad.")].grad, tensors[name], atol=1e-5, rtol=1e-3)
    assert {name for name, value in parameters.items() if value.grad is not None} == set(expected["grad_norm"])


@pytest.mark.parametrize("stage", ["run_stage2", "run_stage3"])
def test_short_training_run(
    stage: str, model: OspreyForCausalLM, tensors: dict[str, Tensor], expected: dict[str, Any]
) -> None:
    """Six AdamW steps follow the reference's loss curve and gradient norms."""
    if stage == "run_stage2":
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in expected["trained_in_stage2"])
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=expected[stage]["lr"], betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    losses, norms = [], []
    for _ in expected[stage]["grad_norm_before_clip"]:
        loss = batch_loss(model, tensors)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(trained, 1.0).item())
        optimizer.step()
    losses.append(batch_loss(model, tensors).item())
    assert losses == pytest.approx(expected[stage]["losses"], rel=1e-3)
    assert norms == pytest.approx(expected[stage]["grad_norm_before_clip"], rel=1e-3)
