"""Claims about the gate with real models: two checkpoints on an export version of drawn scenes."""

from __future__ import annotations

import dataclasses

import pytest
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from cli.main import app
from job_queue.field_answers import questions_for
from label_config.reader import read_label_config
from learning.gate.evaluate import evaluate, measure_latency
from learning.gate.exam import ExamUnusable, read_exam
from learning.gate.run_gate import run_gate
from learning.settings import Settings
from osprey_model import Osprey
from registry.versions import Registry
from tests.support.scene_exports import scene_export
from tests.support.submitted import CONFIG
from tests.support.worker_process import CHECKOUT

NANO = CHECKOUT / "demo" / "checkpoints" / "osprey-nano"
SEEDS = range(1_000_000, 1_000_012)


@pytest.fixture(scope="module")
def version(tmp_path_factory):
    return scene_export(tmp_path_factory.mktemp("exports"), SEEDS, held_out_share=0.99)


@pytest.fixture(scope="module")
def base_set(tmp_path_factory):
    return scene_export(tmp_path_factory.mktemp("base"), range(1_000_100, 1_000_104))


@pytest.fixture(scope="module")
def forgetful(tmp_path_factory):
    """Return osprey-nano with half of its decoder layers disabled: worse answers, everything else the same."""
    folder = tmp_path_factory.mktemp("forgetful") / "checkpoint"
    folder.mkdir()
    for file in NANO.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    weights = load_file(NANO / "model.safetensors")
    last = max(int(name.split(".")[2]) for name in weights if name.startswith("model.layers."))
    for layer in range((last + 1) // 2, last + 1):
        for part in ("mlp.down_proj", "self_attn.o_proj"):
            weights[f"model.layers.{layer}.{part}.weight"].zero_()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture
def settings(tmp_path, version, base_set, forgetful) -> Settings:
    registry = Registry(tmp_path / "registry")
    registry.add(forgetful, "checkpoint", name="forgetful", data_version=version.name)
    registry.add(NANO, "checkpoint", name="nano", data_version=version.name)
    return Settings(model=NANO, registry=registry.folder, exports=version.parent, base_set=base_set, device="cpu")


def test_exam_asks_what_a_click_asks(version):
    """The exam has the filled fields of every whole object, with the questions of a click."""
    clicked = questions_for(read_label_config(CONFIG), "Object", part=False)
    for image in read_exam(version).images:
        for region in image.regions:
            asked = [question for field in region.fields for question in field.questions]
            assert asked == [question for question in clicked if question.field in ("category", "attribute")]


def test_model_is_right_on_what_it_was_trained_for(version):
    """osprey-nano answers over 80 % correctly, equally in two runs, and every region is asked."""
    exam = read_exam(version)
    model = Osprey.from_pretrained(NANO)
    outcomes = evaluate(model, exam)
    assert len(outcomes) == 2 * exam.num_regions
    assert sum(each.is_right for each in outcomes) / len(outcomes) > 0.8
    assert outcomes == evaluate(model, exam)
    latency = measure_latency(model, model, exam.images[:2], rounds=2)
    assert latency.clock == "cpu"
    assert 0.7 < latency.ratio < 1.4


def test_gate_keeps_the_worse_out_and_lets_the_better_in(settings, version):
    """The worse model fails and the better passes; the verdict is stored and nothing is promoted."""
    registry = Registry(settings.registry)
    worse = run_gate(settings, "forgetful")
    assert not worse["passed"]
    assert {"better", "base"} <= {each["name"] for each in worse["criteria"] if not each["passed"]}
    assert registry.version("forgetful").gate == worse
    registry.promote("forgetful")
    better = run_gate(settings, "nano")
    failed = {each["name"] for each in better["criteria"] if not each["passed"]}
    assert failed <= {"latency"}  # of a shared machine
    assert registry.champion_name() == "forgetful"  # promotion is a person's, unless configured
    assert (better["champion"], better["data_version"]) == ("forgetful", version.name)
    equal = run_gate(settings, "forgetful")
    found = next(each["says"] for each in equal["criteria"] if each["name"] == "base" and not each["passed"])
    assert "compared with the best champion" in found  # as good as the champion, worse than the one before it


def test_auto_promotion_where_it_is_configured(settings, monkeypatch):
    """With auto_promote a passed candidate becomes the champion."""
    registry = Registry(settings.registry)
    registry.promote("forgetful")
    monkeypatch.setattr("learning.gate.run_gate.measure_latency", measure_same)
    assert registry.champion_name() == "forgetful"
    run_gate(settings.model_copy(update={"auto_promote": True}), "nano")
    assert registry.champion_name() == "nano"
    assert registry.history()[-1].who == "gate"


def measure_same(candidate, champion, images):
    """Report equal latency, which is not what the calling test is about."""
    measured = measure_latency(candidate, champion, images[:1], rounds=1)
    return dataclasses.replace(measured, candidate_s=measured.champion_s)


def test_nothing_held_out_is_a_verdict(settings, tmp_path):
    """Without a held-out image the candidate fails, and the verdict has the reason."""
    all_learned = scene_export(tmp_path, range(1_000_200, 1_000_202), held_out_share=0.0)
    verdict = run_gate(settings, "nano", data=all_learned)
    assert not verdict["passed"]
    assert "no image is held out" in verdict["criteria"][0]["says"]
    with pytest.raises(ExamUnusable, match="held_out"):
        run_gate(settings.model_copy(update={"base_set": None}), "nano", data=all_learned)


def test_candidate_without_a_usable_exam_is_an_error(settings, tmp_path):
    """A missing export version raises an error."""
    with pytest.raises(ExamUnusable, match="no export version"):
        run_gate(settings.model_copy(update={"exports": tmp_path}), "nano")


def test_promotion_wants_the_gate_unless_forced(settings, monkeypatch):
    """`osprey promote` asks for the gate, --force skips it, `models list` and `rollback` show the champion."""
    monkeypatch.setenv("OSPREY_REGISTRY", str(settings.registry))
    monkeypatch.setenv("OSPREY_REDIS_URL", "redis://127.0.0.1:1/0")
    runner = CliRunner()
    refused = runner.invoke(app, ["promote", "nano"])
    assert refused.exit_code == 1
    assert "osprey gate nano" in refused.output
    assert runner.invoke(app, ["promote", "nano", "--force", "--wait", "0"]).exit_code == 0
    listed = runner.invoke(app, ["models", "list"]).output
    assert "forgetful" in listed
    assert "promote base -> nano" in listed
    assert "base serves again" in runner.invoke(app, ["rollback", "--wait", "0"]).output
    assert runner.invoke(app, ["promote", "nobody"]).exit_code == 1
