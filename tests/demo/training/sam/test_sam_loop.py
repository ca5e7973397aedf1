"""Claims about a run: it can stop and continue."""

import json

import pytest
import torch

from demo.training.sam import sam_loop
from demo.training.sam.sam_loop import Trainer, TrainSettings
from worker.sam.segmenter import SamSegmenter


@pytest.fixture
def settings(tmp_path):
    return TrainSettings(
        out=tmp_path / "out", work=tmp_path / "work", minutes=5.0, num_scenes=25, batch_size=1, validation_scenes=1
    )


def test_a_run_leaves_a_loadable_checkpoint_and_goes_on_where_it_stopped(settings):
    """Steps, weights and optimiser state come back; the log has a line per snapshot."""
    first = Trainer(settings, torch.device("cpu"))
    assert not first.resume()

    def stop_after_two_steps(trainer):
        if trainer.steps == 2:
            trainer.trained_s = 60 * settings.minutes

    first.run(stop_after_two_steps)
    assert SamSegmenter.load(settings.out).model_version.startswith("sam-nano-")
    (line,) = (json.loads(line) for line in (settings.work / "log.jsonl").read_text().splitlines())
    assert line["steps"] == 2
    assert 0 <= line["object_iou"] <= 1

    second = Trainer(settings, torch.device("cpu"))
    assert second.resume()
    assert second.steps == 2
    for ours, theirs in ((second.sam, first.sam), (second.head, first.head)):
        for name, value in theirs.state_dict().items():
            torch.testing.assert_close(ours.state_dict()[name], value, rtol=0, atol=0)
    for ours, theirs in zip(second.optimizers, first.optimizers, strict=True):
        assert len(ours.state_dict()["state"]) == len(theirs.state_dict()["state"]) > 0


def test_the_learning_rate_warms_up_and_ends_low():
    """From almost nothing to the peak after 2 % of the run, down to a fiftieth at its end."""
    rates = [sam_loop._schedule(progress) for progress in (0.0, 0.02, 0.5, 1.0)]
    assert rates[0] < 0.05
    assert rates[1] == pytest.approx(1.0)
    assert rates[1] > rates[2] > rates[3] == pytest.approx(0.02)
