"""Claims about LoRA: matrices for embedding table and head, runs that start from an adapter, learning rates."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel

from osprey_model.training.lora import add_adapter, continue_adapter, save_adapter
from osprey_model.training.run import TrainingRun
from osprey_model.training.stages import STAGES, LoraOptions, freeze_for
from osprey_model.training.train import train
from osprey_model.weights.adapter import AdapterMismatch, merge_adapter, read_adapter
from osprey_model.weights.build import load_osprey


def test_vocabulary_is_adapted_saved_and_merged(tiny: Path, tmp_path: Path) -> None:
    """The merged model has the trained model's logits; without the option, table and head have no matrices."""
    plain = freeze_for(add_adapter(load_osprey(tiny), LoraOptions(rank=2), base=tiny), STAGES["lora"])
    assert not [name for name in plain if "embed_tokens" in name or "lm_head" in name]
    model = add_adapter(load_osprey(tiny), LoraOptions(rank=2, vocabulary=True), base=tiny)
    names = freeze_for(model, STAGES["lora"])
    assert {name.split(".lora_")[0].rsplit(".", 1)[-1] for name in names if ".lora_" in name} >= {
        "embed_tokens",
        "lm_head",
    }
    write_changed(model, names, tmp_path, base=tiny)
    merged = merge_adapter(load_osprey(tiny), tmp_path, base=tiny)
    ids = torch.randint(3, 900, (1, 12))
    with torch.no_grad():
        expected = model(input_ids=ids).logits
        torch.testing.assert_close(merged(input_ids=ids).logits, expected, atol=1e-5, rtol=1e-4)
        assert not torch.allclose(load_osprey(tiny)(input_ids=ids).logits, expected, atol=1e-2)


def test_training_begins_with_an_adapter(tiny: Path, tmp_path: Path) -> None:
    """The adapter's weights replace the new ones; an adapter with another rank is an error."""
    options = LoraOptions(rank=2, dropout=0.0)
    first = add_adapter(load_osprey(tiny), options, base=tiny)
    write_changed(first, freeze_for(first, STAGES["lora"]), tmp_path, base=tiny)
    second = add_adapter(load_osprey(tiny), options, base=tiny)
    continue_adapter(second, tmp_path)
    ids = torch.randint(3, 900, (1, 12))
    with torch.no_grad():
        torch.testing.assert_close(second.eval()(input_ids=ids).logits, first(input_ids=ids).logits)
    with pytest.raises(AdapterMismatch, match="misshapen"):
        continue_adapter(add_adapter(load_osprey(tiny), LoraOptions(rank=4), base=tiny), tmp_path)


def write_changed(model: PeftModel, names: list[str], folder: Path, *, base: Path) -> None:
    """Add noise to the trained parameters and write the adapter."""
    parameters = dict(model.named_parameters())
    torch.manual_seed(1)
    with torch.no_grad():
        for name in names:
            parameters[name].add_(0.05 * torch.randn_like(parameters[name]))
    save_adapter(model, folder, base=base, state={name: parameters[name].detach() for name in names})
    model.eval()


def test_whole_copies_learn_slower_than_the_matrices(tiny: Path, scenes: Path, tmp_path: Path) -> None:
    """Whole modules change by a tenth of what LoRA's matrices change by.

    A step of Adam changes a parameter by at most its learning rate. The first of the two steps has rate zero because of
    the warm-up, and B starts at zero.
    """
    options = LoraOptions(rank=2, dropout=0.0, whole_rate=0.1)
    run = TrainingRun(
        "lora", tiny, scenes / "region_data.json", tmp_path, max_steps=2, learning_rate=1e-3, batch_size=2,
        lora=options, progress=False,
    )  # fmt: skip
    train(run)
    trained, before = read_adapter(tmp_path), dict(load_osprey(tiny).named_parameters())
    matrices = max(float(value.abs().max()) for name, value in trained.items() if "lora_B" in name)
    whole = [
        float((value - before[name.removeprefix("base_model.model.")]).detach().abs().max())
        for name, value in trained.items()
        if ".lora_" not in name
    ]
    assert matrices == pytest.approx(1e-3, rel=0.1)
    assert max(whole) == pytest.approx(1e-4, rel=0.1)
