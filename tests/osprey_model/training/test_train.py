"""What a run promises beyond its stage: weights, early stop, precision, memory, reports, reproducibility."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from osprey_model.data.collate import Sample, collate
from osprey_model.data.conversation import LabeledIds
from osprey_model.data.mixture import BadEntry
from osprey_model.inputs.preprocess import ImagePreprocessor
from osprey_model.modeling.osprey import OspreyForCausalLM
from osprey_model.training.feature_cache import FeatureCache
from osprey_model.training.run import TrainingRun
from osprey_model.training.stages import STAGES, StageName, part_of
from osprey_model.training.train import train
from osprey_model.training.trainer import OspreyTrainer
from osprey_model.weights.build import load_osprey

Runs = Callable[..., TrainingRun]


@pytest.fixture
def run(tiny: Path, scenes: Path, tmp_path: Path) -> Runs:
    """Runs of stage 3 on the tiny model, each with a folder of its own."""
    count = iter(range(100))

    def make(**given: Any) -> TrainingRun:
        values: dict[str, Any] = {
            "stage": "3", "model": tiny, "data": scenes / "region_data.json", "out": tmp_path / str(next(count)),
            "max_steps": 4, "learning_rate": 1e-3, "log_steps": 1, "device": "cpu", "progress": False,
        }  # fmt: skip
        return TrainingRun(**{**values, **given})

    return make


def losses(run: TrainingRun) -> list[float]:
    return [loss for _, loss in train(run).losses]


def with_entries(scenes: Path, folder: Path, change: Callable[[list[dict[str, Any]]], None]) -> Path:
    """The data config over changed entries."""
    entries = json.loads((scenes / "region.json").read_text())
    change(entries)
    (folder / "changed.json").write_text(json.dumps(entries))
    row = {"type": "OspreyShortForm", "ann_file": "changed.json", "img_prefix": str(scenes)}
    (folder / "data.json").write_text(json.dumps([row]))
    return folder / "data.json"


def test_a_seed_repeats_a_run(run: Runs) -> None:
    """Same seed, same curve to the last bit; another seed, another order."""
    first = losses(run(batch_size=1))
    assert losses(run(batch_size=1)) == first
    assert losses(run(batch_size=1, seed=1)) != first


def test_what_must_not_change_the_curve(run: Runs) -> None:
    """Accumulated batches, recomputed activations, cached features and loader processes give the same losses."""
    expected = pytest.approx(losses(run()), abs=2e-5)
    assert losses(run(device_batch_size=1)) == expected
    assert losses(run(gradient_checkpointing=True)) == expected
    assert losses(run(cache_bytes=1 << 20)) == expected
    assert losses(run(workers=1)) == expected


def test_bfloat16_is_close(run: Runs) -> None:
    """Autocast on the CPU; the mask extractor and what trains stay float32."""
    assert losses(run(bf16=True)) == pytest.approx(losses(run()), abs=0.05)
    assert losses(run(stage="lora", bf16=True)) == pytest.approx(losses(run(stage="lora")), abs=0.05)


@pytest.mark.parametrize("stage", ["1", "2", "3", "lora"])
def test_frozen_weights_never_are_float32(
    stage: StageName, run: Runs, scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They come from the file in bfloat16: 14 GB, not 28, for LoRA at 7B. What trains and the extractor are float32."""
    seen: list[dict[str, tuple[torch.dtype, bool]]] = []
    loaded: list[set[torch.dtype]] = []

    def load(*arguments: Any, **options: Any) -> OspreyForCausalLM:
        model = load_osprey(*arguments, **options)
        frozen = {p.dtype for n, p in model.named_parameters() if part_of(n) not in STAGES[stage].trains}
        loaded.append(frozen - {p.dtype for p in model.mask_extractor.parameters()})
        return model

    class Watched(OspreyTrainer):
        def __init__(self, **arguments: Any) -> None:
            super().__init__(**arguments)
            seen.append({n: (p.dtype, p.requires_grad) for n, p in self.model.named_parameters()})

    monkeypatch.setattr("osprey_model.training.train.load_osprey", load)
    monkeypatch.setattr("osprey_model.training.train.OspreyTrainer", Watched)
    train(
        run(stage=stage, bf16=True, max_steps=1, data=scenes / f"{'caption' if stage == '1' else 'region'}_data.json")
    )
    assert loaded[0] == {torch.bfloat16}
    for name, (dtype, trains) in seen[0].items():
        whole_copy = "mask_extractor." in name or ("mm_projector." in name and stage == "lora")
        assert dtype == (torch.float32 if trains or whole_copy else torch.bfloat16), name


def test_weight_two_is_being_there_twice(run: Runs, scenes: Path, tmp_path: Path) -> None:
    """The loss of [a, a, b, b, b] equals that of [a (weight 2), b (weight 3)]."""

    def repeated(entries: list[dict[str, Any]]) -> None:
        entries[:] = [entries[0]] * 2 + [entries[1]] * 3

    def weighted(entries: list[dict[str, Any]]) -> None:
        entries[:] = [{**entries[0], "weight": 2}, {**entries[1], "weight": 3}]

    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    expected = losses(run(data=with_entries(scenes, tmp_path / "a", repeated), batch_size=5))
    got = losses(run(data=with_entries(scenes, tmp_path / "b", weighted), batch_size=2))
    assert got == pytest.approx(expected, abs=2e-5)


def test_early_stop_keeps_the_best_weights(run: Runs, scenes: Path, tmp_path: Path) -> None:
    """Held-out answers that contradict the training data get worse; the result is the evaluation that was best."""

    def contradict(entries: list[dict[str, Any]]) -> None:
        for entry, answer in zip(entries, ("dog", "cup", "house", "ball"), strict=True):
            entry["conversations"][1]["value"] = answer

    held_out = with_entries(scenes, tmp_path, contradict)
    result = train(run(held_out=held_out, eval_steps=4, patience=2, max_steps=200, learning_rate=1e-2))
    assert result.stopped_early
    assert result.steps < 200
    values = [loss for _, loss in result.held_out_losses]
    assert result.best_held_out_loss == min(values) < values[-1]
    again = train(run(model=result.out, held_out=held_out, eval_steps=1, max_steps=1, learning_rate=1e-12))
    assert again.held_out_losses[0][1] == pytest.approx(result.best_held_out_loss, abs=1e-4)


BAD: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "missing image": (lambda entry: entry.update(file_name="nowhere.png"), r"nowhere\.png does not exist"),
    "too long": (
        lambda entry: entry["conversations"][1].update(value="boat " * 600),
        r"SampleTooLong: the conversation takes \d+ positions with its image, the decoder has 512",
    ),
    "weight": (lambda entry: entry.update(weight=-1), "expected a positive number for weight, got -1"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_entries_are_named_before_training(what: str, run: Runs, scenes: Path, tmp_path: Path) -> None:
    """With file and index; or left out, counted and listed at the end."""
    spoil, message = BAD[what]
    data = with_entries(scenes, tmp_path, lambda entries: spoil(entries[2]))
    with pytest.raises(BadEntry, match=rf"changed\.json, entry 2: .*{message}"):
        train(run(data=data))
    result = train(run(data=data, on_error="skip", max_steps=1, batch_size=1))
    assert result.num_samples == 3
    assert len(result.bad_entries) == 1
    assert "changed.json, entry 2" in result.bad_entries[0]
    assert json.loads((result.out / "result.json").read_text())["bad_entries"] == list(result.bad_entries)


def test_masks_that_turn_out_bad_are_replaced_and_counted(run: Runs, scenes: Path, tmp_path: Path) -> None:
    """A mask without a pixel is found when it is made; each such sample counts once, also from loader processes."""

    def empty(entries: list[dict[str, Any]]) -> None:
        entries[1]["annotation"][0]["segmentation"] = [[900, 900, 910, 900, 910, 910]]

    data = with_entries(scenes, tmp_path, empty)
    with pytest.raises(BadEntry, match=r"entry 1: .*covers no pixel"):
        train(run(data=data))
    result = train(run(data=data, on_error="skip", workers=1))
    assert result.num_replaced == len(result.replaced_entries) == 1
    assert re.search(r"changed\.json, entry 1: .*covers no pixel", result.replaced_entries[0])
    assert json.loads((result.out / "result.json").read_text())["replaced_entries"] == list(result.replaced_entries)


def test_one_process_uses_one_gpu_of_several(run: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """No DataParallel, which would make batches larger than they were asked for."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    result = train(run(device="auto", bf16=False, max_steps=1))
    state = json.loads((result.out / "checkpoint-1" / "trainer_state.json").read_text())
    assert state["train_batch_size"] == 4


def test_batch_that_devices_cannot_share_is_refused(run: Runs) -> None:
    """The message has the three numbers."""
    with pytest.raises(ValueError, match="a batch of 4 cannot be shared by 1 devices in steps of 3"):
        train(run(device_batch_size=3))


def test_loss_of_weighted_samples_is_the_weighted_mean(tiny: Path) -> None:
    """Per token, whatever the lengths; dividing by a given total is the sum over it."""
    model = load_osprey(tiny)
    samples = [
        Sample(LabeledIds([1, 5, 6, 7], [-100, 5, 6, 7]), None, None, weight=2.0),
        Sample(LabeledIds([1, 8], [-100, 8]), None, None, weight=0.5),
    ]
    both = model(**collate(samples, pad_token_id=0)).loss
    single = [model(**collate([sample], pad_token_id=0)).loss for sample in samples]
    expected = (2 * 3 * single[0] + 0.5 * 1 * single[1]) / (2 * 3 + 0.5)
    torch.testing.assert_close(both, expected)
    total = model(**collate(samples, pad_token_id=0), num_items_in_batch=torch.tensor(13.0)).loss
    torch.testing.assert_close(total, expected / 2)


def test_cache_forgets_the_oldest(tiny: Path, scenes: Path) -> None:
    """Bounded by bytes; content decides, so a copy of a file is no second image."""
    model = load_osprey(tiny)
    paths = sorted(scenes.glob("*.png"))
    cache = FeatureCache(model.model.vision_tower, ImagePreprocessor(64), max_bytes=1, dtype=torch.float32)
    for path in (paths[0], paths[0], paths[1], paths[0]):
        cache(path)
    assert (cache.hits, cache.misses) == (1, 3)
