"""Every row of the table learns a handful of samples and changes only what it names."""

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
    """SHA-256 of every parameter."""
    return {k: hashlib.sha256(v.detach().numpy().tobytes()).hexdigest() for k, v in model.named_parameters()}


def trained_model(run: TrainingRun) -> OspreyForCausalLM:
    """What a run has left, as it is loaded for serving."""
    if run.stage != "lora":
        return load_osprey(run.out)
    return merge_adapter(load_osprey(run.model), run.out, base=run.model)


# Rates far above the table's: a handful of samples, a few dozen steps.
OVERFIT: dict[StageName, tuple[int, float]] = {"1": (80, 1e-2), "2": (40, 3e-3), "3": (25, 1e-3), "lora": (30, 3e-3)}


@pytest.mark.parametrize("stage", STAGES)
def test_stage_overfits_and_changes_only_its_parameters(
    stage: StageName, scenes: Path, nano: Path, listener: Path, tmp_path: Path
) -> None:
    """From above 1 to below 0.1; the tower and every part the row does not name keep their hash."""
    steps, rate = OVERFIT[stage]
    config = json.loads((scenes / "caption_data.json").read_text()) if stage == "1" else None
    data = scenes / "region_data.json"
    if config is not None:  # the two captions change places: what the decoder has said before will not do
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
    # Merged for serving, LoRA's matrices are in the decoder's linear layers; they touch nothing else of it.
    expected: set[Part] = {"decoder" if part == "lora" else part for part in STAGES[stage].trains}
    assert parts == expected
    if stage == "lora":
        assert all("_proj.weight" in name for name in changed if part_of(name) == "decoder")


def test_model_without_the_part_is_refused() -> None:
    """A stage that would train nothing of a part it names is an error."""
    with pytest.raises(ValueError, match="mask_extractor"):
        freeze_for(nn.Linear(2, 2), STAGES["2"])


def test_originals_of_copied_modules_do_not_train() -> None:
    """PEFT keeps the module it copies; only the copy is in a part."""
    assert part_of("base_model.model.mask_extractor.original_module.res2.weight") is None
    assert part_of("base_model.model.mask_extractor.modules_to_save.default.res2.weight") == "mask_extractor"
    assert part_of("base_model.model.model.layers.0.mlp.up_proj.lora_A.default.weight") == "lora"
    assert part_of("base_model.model.model.layers.0.mlp.up_proj.base_layer.weight") == "decoder"
