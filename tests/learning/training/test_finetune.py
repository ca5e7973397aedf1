"""Claims about fine-tunes: an export version becomes one candidate, whatever step is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from learning.gate.exam import ExamUnusable
from learning.settings import Settings
from learning.training.finetune import FineTuneRefused, NothingToLearn, train_candidate
from learning.training.options import FineTuneOptions
from learning.training.triggers import trained_revision
from osprey_model import Osprey
from osprey_model.weights.checkpoint import fingerprint
from registry.sets_in_making import WAITING, SetNotMade, maker, plan
from registry.versions import Registry
from tests.support.scene_exports import scene_export

NANO = Path(__file__).parents[3] / "demo" / "checkpoints" / "osprey-nano"
OPTIONS = FineTuneOptions(
    learning_rate=1e-3, max_steps=2, batch_size=1, rank=2, alpha=4, dropout=0.0, gate=False, patience=1
)
FACTS = {"project": 7, "store_revision": 12}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an export version of four scenes."""
    return scene_export(tmp_path_factory.mktemp("exports"), range(40, 44), held_out_share=0.3)


@pytest.fixture
def settings(tmp_path: Path, data: Path) -> Settings:
    """Return settings with an empty registry; the version replays itself."""
    return Settings(registry=tmp_path / "registry", replay=data / "held_out.json", exports=data.parent)


def test_candidate_and_its_successor(settings: Settings, data: Path) -> None:
    """The candidate loads on its base and has its origin; the next one starts from the champion's adapter."""
    first = train_candidate(settings, data, OPTIONS, facts=FACTS)
    registry = Registry(settings.registry)
    assert (first.version.kind, first.version.parents, first.version.data_version) == ("adapter", ("base",), data.name)
    assert first.version.config["store_revision"] == 12
    assert first.version.metrics["steps"] == 2
    assert trained_revision(registry, 7) == 12
    assert trained_revision(registry, 8) == 0
    assert first.version.base is not None
    assert first.version.base.fingerprint == fingerprint(settings.model)
    Osprey.from_pretrained(settings.model, adapter=first.version.weights)
    assert not list((settings.registry / "runs").iterdir())
    registry.promote(first.version.name)
    second = train_candidate(settings, data, OPTIONS)
    assert second.version.parents == (first.version.name,)
    other_rank = OPTIONS.model_copy(update={"rank": 4})
    with pytest.raises(FineTuneRefused, match="other LoRA options"):
        train_candidate(settings, data, other_rank)


def test_same_corrections_are_learned_once(settings: Settings, data: Path) -> None:
    """A second call returns the version of the first."""
    first = train_candidate(settings, data, OPTIONS)
    again = train_candidate(settings, data, OPTIONS)
    assert (again.version.name, again.is_new) == (first.version.name, False)
    assert len(Registry(settings.registry).versions()) == 1


CHILD = """
import dataclasses, sys
from pathlib import Path
from tests.learning.training.test_finetune import OPTIONS
from learning.gate.exam import ExamUnusable
from learning.training.finetune import train_candidate
from learning.settings import Settings

def on_progress(what, done, total):
    print(f"{what}|{done}|{total}", flush=True)

registry, data = map(Path, sys.argv[1:])
settings = Settings(registry=registry, exports=data.parent, base_set=data)
options = OPTIONS.model_copy(update={"max_steps": None, "epochs": 4, "gate": True})
train_candidate(settings, data, options, on_progress=on_progress)
"""
# Where a run is killed, each time a little further: in its second epoch, between training and registry, in the gate.
KILL_AT = (
    lambda what, done, total: what == "training" and done > total // 4,
    lambda what, done, total: what == "training" and done == total,
    lambda what, done, total: what == "held-out set",
)


def test_killed_fine_tune_goes_on(tmp_path: Path, data: Path) -> None:
    """Each run continues the killed one before it, and in the end there is one version with its verdict."""
    command = [sys.executable, "-c", CHILD, str(tmp_path / "registry"), str(data)]
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "OMP_NUM_THREADS": "1"}
    registry, trained = Registry(tmp_path / "registry"), []
    for number, kill_here in enumerate((*KILL_AT, None)):
        seen = run_until(command, environ, kill_here)
        trained.append([done for what, done, _ in seen if what == "training"])
        assert registry.champion() is None
        assert len(registry.versions()) == (number >= 2)
    assert trained[1][0] > trained[0][0]  # from the first epoch's checkpoint
    assert not trained[3]  # what is registered is not trained again
    (version,) = registry.versions()
    assert version.metrics["steps"] == trained[1][-1]
    assert version.gate is not None
    assert not list((tmp_path / "registry" / "runs").iterdir())


def run_until(command, environ, kill_here) -> list[tuple[str, int, int]]:
    """Run a child process, kill it where `kill_here` returns True, and return its progress."""
    seen = []
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True, start_new_session=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            what, done, total = line.split("|")
            seen.append((what, int(done), int(total)))
            if kill_here is not None and kill_here(*seen[-1]):
                os.killpg(child.pid, signal.SIGKILL)
                break
    assert child.returncode == (0 if kill_here is None else -signal.SIGKILL)
    return seen


def test_without_images_there_is_nothing_to_learn(settings: Settings, data: Path, tmp_path: Path) -> None:
    """A version without images or without a training side is refused, and so is a missing registry."""
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "manifest.json").write_bytes((data / "manifest.json").read_bytes())
    with pytest.raises(NothingToLearn, match="with images"):
        train_candidate(settings, bare, OPTIONS)
    (bare / "data.json").write_text("[]")  # all images on the held-out side
    with pytest.raises(NothingToLearn, match="training side"):
        train_candidate(settings, bare, OPTIONS)
    with pytest.raises(FineTuneRefused, match="OSPREY_REGISTRY"):
        train_candidate(settings.model_copy(update={"registry": None}), data, OPTIONS)


def test_a_base_set_that_cannot_be_asked_stops_before_training(settings: Settings, data: Path, tmp_path: Path) -> None:
    """An unusable base set fails before training if the gate is to run, and is ignored otherwise."""
    nowhere = settings.model_copy(update={"base_set": tmp_path / "nowhere"})
    with pytest.raises(ExamUnusable, match="OSPREY_BASE_SET names an export version"):
        train_candidate(nowhere, data, OPTIONS.model_copy(update={"gate": True}))
    assert not Registry(settings.registry).versions()
    assert train_candidate(nowhere, data, OPTIONS).is_new


def test_a_set_that_is_being_made_is_waited_for_and_one_that_failed_is_not(
    settings: Settings, data: Path, tmp_path: Path
) -> None:
    """Replay and, with a gate, the base set; its failure stands in the message, and nothing is trained."""
    truth = tmp_path / "truth"
    waits = settings.model_copy(update={"replay": truth / "replay" / "data.json"})
    with pytest.raises(RuntimeError, match="no space"), maker(truth, 2):
        raise RuntimeError("no space")
    with pytest.raises(SetNotMade, match="no space"):
        train_candidate(waits, data, OPTIONS)
    told: list[str] = []

    def on_progress(what: str, done: int, total: int) -> None:
        told.append(what)
        if what == WAITING:
            with maker(truth, 1):
                (truth / "replay").symlink_to(data)

    plan(truth)
    assert train_candidate(waits, data, OPTIONS, on_progress=on_progress).is_new
    assert told[0] == WAITING


def test_options_from_command_environment_and_checkpoint(tmp_path: Path) -> None:
    """Arguments override variables, those the checkpoint's file, and that the defaults."""
    environ = {
        "OSPREY_FINETUNE_LEARNING_RATE": "3e-3",
        "OSPREY_FINETUNE_VOCABULARY": "off",
        "OSPREY_FINETUNE_RANK": "8",
    }
    options = FineTuneOptions.for_checkpoint(tmp_path, environ, rank=16, epochs=None)
    assert (options.learning_rate, options.vocabulary, options.rank, options.epochs) == (3e-3, False, 16, 2.0)
    (tmp_path / "finetune.json").write_text('{"learning_rate": 1e-3, "whole_rate": 0.05, "max_steps": 400}')
    options = FineTuneOptions.for_checkpoint(tmp_path, environ)
    assert (options.learning_rate, options.whole_rate, options.max_steps) == (3e-3, 0.05, 400)
    assert FineTuneOptions.for_checkpoint(NANO, {}).learning_rate > FineTuneOptions().learning_rate


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "finetune.json is not JSON"),
        ("[]", "finetune.json: expected an object"),
        ('{"rate": 1}', "expected an object with some of .*learning_rate"),
        ('{"rank": 8.5}', "finetune.json: rank must be a whole number above zero, got (8.5|True)"),
        ('{"rank": true}', "finetune.json: rank must be a whole number above zero, got (8.5|True)"),
        ('{"vocabulary": 1}', "finetune.json: vocabulary must be on or off, got 1"),
        ('{"learning_rate": 0}', "learning_rate must be a number above zero, got 0"),
    ],
)
def test_a_checkpoints_options_are_checked(tmp_path: Path, text: str, message: str) -> None:
    """A malformed finetune.json is refused with the reason."""
    (tmp_path / "finetune.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        FineTuneOptions.for_checkpoint(tmp_path, {})


def test_wrong_options_are_named(tmp_path: Path) -> None:
    """The error names the variable or the option that is wrong."""
    with pytest.raises(ValueError, match="OSPREY_FINETUNE_EPOCHS must be a number above zero, got 'many'"):
        FineTuneOptions.for_checkpoint(tmp_path, {"OSPREY_FINETUNE_EPOCHS": "many"})
    with pytest.raises(ValueError, match="epochs must be a number above zero, got -1"):
        FineTuneOptions.for_checkpoint(tmp_path, {}, epochs=-1.0)
    with pytest.raises(ValueError, match="rank"):
        FineTuneOptions(rank=0)
