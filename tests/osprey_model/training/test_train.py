"""Claims about every run: sample weights, early stop, precision, memory, bad entries, reproducibility."""

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
    """Return a function that makes runs of stage 3 on the tiny model, each with its own folder."""
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
    """Write the region entries after `change`; return their data config."""
    entries = json.loads((scenes / "region.json").read_text())
    change(entries)
    (folder / "changed.json").write_text(json.dumps(entries))
    row = {"type": "OspreyShortForm", "ann_file": "changed.json", "img_prefix": str(scenes)}
    (folder / "data.json").write_text(json.dumps([row]))
    return folder / "data.json"


def test_a_seed_repeats_a_run(run: Runs) -> None:
    """The same seed gives the same curve to the last bit; another seed gives another one."""
    first = losses(run(batch_size=1))
    assert losses(run(batch_size=1)) == first
    assert losses(run(batch_size=1, seed=1)) != first


def test_options_that_do_not_change_the_curve(run: Runs) -> None:
    """Losses are the same with accumulation, gradient checkpointing, cached features or loader processes."""
    expected = pytest.approx(losses(run()), abs=2e-5)
    assert losses(run(device_batch_size=1)) == expected
    assert losses(run(gradient_checkpointing=True)) == expected
    assert losses(run(cache_bytes=1 << 20)) == expected
    assert losses(run(workers=1)) == expected


def test_bfloat16_is_close(run: Runs) -> None:
    """In bfloat16 (autocast on the CPU) the losses differ by at most 0.05 from those in float32."""
    assert losses(run(bf16=True)) == pytest.approx(losses(run()), abs=0.05)
    assert losses(run(stage="lora", bf16=True)) == pytest.approx(losses(run(stage="lora")), abs=0.05)


@pytest.mark.parametrize("stage", ["1", "2", "3", "lora"])
def test_frozen_weights_never_are_float32(
    stage: StageName, run: Runs, scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frozen weights are loaded in bfloat16 (7B: 14 GB, not 28); trained ones and the mask extractor are float32."""
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


def test_weight_two_equals_two_copies(run: Runs, scenes: Path, tmp_path: Path) -> None:
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
    """If held-out data contradict the training data, the run stops early and keeps the best evaluation's weights."""

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
    """The error has file and index; with on_error="skip" the entry is left out and listed in the result."""
    spoil, message = BAD[what]
    data = with_entries(scenes, tmp_path, lambda entries: spoil(entries[2]))
    with pytest.raises(BadEntry, match=rf"changed\.json, entry 2: .*{message}"):
        train(run(data=data))
    result = train(run(data=data, on_error="skip", max_steps=1, batch_size=1))
    assert result.num_samples == 3
    assert len(result.bad_entries) == 1
    assert "changed.json, entry 2" in result.bad_entries[0]
    assert json.loads((result.out / "result.json").read_text())["bad_entries"] == list(result.bad_entries)


def test_empty_masks_are_replaced_and_counted(run: Runs, scenes: Path, tmp_path: Path) -> None:
    """An empty mask is found when it is decoded; each such sample is counted once, also by loader processes."""

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
    """Training does not use DataParallel, which would make the batches larger than the option says."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    result = train(run(device="auto", bf16=False, max_steps=1))
    state = json.loads((result.out / "checkpoint-1" / "trainer_state.json").read_text())
    assert state["train_batch_size"] == 4


def test_batch_that_cannot_be_divided_is_refused(run: Runs) -> None:
    """The error has batch size, number of devices and device batch size."""
    message = "a batch of 4 samples cannot be divided among 1 devices with 3 samples at a time"
    with pytest.raises(ValueError, match=message):
        train(run(device_batch_size=3))


def test_loss_of_weighted_samples_is_the_weighted_mean(tiny: Path) -> None:
    """The loss is the weighted mean over tokens; with a given total, the weighted sum is divided by the total."""
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


def test_cache_removes_the_least_recently_used(tiny: Path, scenes: Path) -> None:
    """A cache with room for one image hits only on the image of the previous call."""
    model = load_osprey(tiny)
    paths = sorted(scenes.glob("*.png"))
    cache = FeatureCache(model.model.vision_tower, ImagePreprocessor(64), max_bytes=1, dtype=torch.float32)
    for path in (paths[0], paths[0], paths[1], paths[0]):
        cache(path)
    assert (cache.hits, cache.misses) == (1, 3)
