"""Claims about the stages: each one can learn a few samples, and changes only the parts that it trains."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from torch import nn

from osprey_model.modeling.osprey import OspreyForCausalLM
from osprey_model.training.run import TrainingRun
from osprey_model.training.stages import STAGES, Part, StageName, freeze_for, part_of
from osprey_model.training.train import train
from osprey_model.weights.adapter import merge_adapter
from osprey_model.weights.build import load_osprey


def hashes(model: nn.Module) -> dict[str, str]:
    """Return the SHA-256 of every parameter by name."""
    return {k: hashlib.sha256(v.detach().numpy().tobytes()).hexdigest() for k, v in model.named_parameters()}


def trained_model(run: TrainingRun) -> OspreyForCausalLM:
    """Load the result of a run as it is loaded for serving."""
    if run.stage != "lora":
        return load_osprey(run.out)
    return merge_adapter(load_osprey(run.model), run.out, base=run.model)


# Steps and learning rate; the rates are far above the stage's, so that a few dozen steps are enough.
OVERFIT: dict[StageName, tuple[int, float]] = {"1": (80, 1e-2), "2": (40, 3e-3), "3": (25, 1e-3), "lora": (30, 3e-3)}


@pytest.mark.parametrize("stage", STAGES)
def test_stage_overfits_and_changes_only_its_parameters(
    stage: StageName, scenes: Path, nano: Path, listener: Path, tmp_path: Path
) -> None:
    """The loss falls from above 1 to below 0.1; the tower and all parts that the stage does not train are unchanged."""
    steps, rate = OVERFIT[stage]
    config = json.loads((scenes / "caption_data.json").read_text()) if stage == "1" else None
    data = scenes / "region_data.json"
    if config is not None:  # swap the captions, so that the decoder's earlier answers are wrong
        entries = json.loads((scenes / "caption.json").read_text())
        first, second = (entry["conversations"][1] for entry in entries)
        first["value"], second["value"] = second["value"], first["value"]
        (tmp_path / "swapped.json").write_text(json.dumps(entries))
        row = {**config[0], "ann_file": str(tmp_path / "swapped.json"), "img_prefix": str(scenes)}
        data = tmp_path / "data.json"
        data.write_text(json.dumps([row]))
    run = TrainingRun(
        stage, listener if stage == "1" else nano, data, tmp_path / "out", max_steps=steps, learning_rate=rate,
        batch_size=2 if stage == "1" else 4, cache_bytes=1 << 28, log_steps=1, save_steps=steps, progress=False,
    )  # fmt: skip
    before = hashes(load_osprey(run.model))
    result = train(run)
    assert result.losses[0][1] > 1
    assert result.final_loss < 0.1
    changed = {name for name, digest in hashes(trained_model(run)).items() if digest != before[name]}
    parts = {part_of(name) for name in changed}
    # Merging adds LoRA's matrices to the decoder's linear layers, and changes nothing else in it.
    expected: set[Part] = {"decoder" if part == "lora" else part for part in STAGES[stage].trains}
    assert parts == expected
    if stage == "lora":
        assert all("_proj.weight" in name for name in changed if part_of(name) == "decoder")


def test_model_without_the_part_is_refused() -> None:
    """A model without a part that the stage trains is an error."""
    with pytest.raises(ValueError, match="mask_extractor"):
        freeze_for(nn.Linear(2, 2), STAGES["2"])


def test_originals_of_copied_modules_do_not_train() -> None:
    """Of a module that PEFT copies, only the copy belongs to a part."""
    assert part_of("base_model.model.mask_extractor.original_module.res2.weight") is None
    assert part_of("base_model.model.mask_extractor.modules_to_save.default.res2.weight") == "mask_extractor"
    assert part_of("base_model.model.model.layers.0.mlp.up_proj.lora_A.default.weight") == "lora"
    assert part_of("base_model.model.model.layers.0.mlp.up_proj.base_layer.weight") == "decoder"
