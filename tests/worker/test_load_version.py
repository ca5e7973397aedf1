"""A registered version becomes a model: adapters on exactly the base that they were trained on."""

from __future__ import annotations

import warnings

import pytest
import torch
from typer.testing import CliRunner

from cli.main import app
from job_queue.errors import ModelUnavailable
from osprey_model.weights.build import load_osprey
from osprey_model.weights.checkpoint import fingerprint
from registry.versions import Base, Registry
from tests.support.worker_process import CHECKOUT
from worker.load_version import load_version
from worker.settings import Settings

NANO = CHECKOUT / "demo" / "checkpoints" / "osprey-nano"


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    """An adapter whose mask extractor and LoRA matrices are not those of the base."""
    from osprey_model.training.lora import add_adapter, save_adapter
    from osprey_model.training.stages import LoraOptions

    folder = tmp_path_factory.mktemp("adapter")
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft's own, about the base's name
        model = add_adapter(load_osprey(NANO), LoraOptions(), base=NANO)
        state = {name: tensor + 0.05 for name, tensor in model.named_parameters() if tensor.requires_grad}
        save_adapter(model, folder, base=NANO, state=state)
    return folder


@pytest.fixture
def registry(tmp_path) -> Registry:
    return Registry(tmp_path / "registry")


def test_adapter_is_merged_into_its_base(registry, adapter):
    """The adapter's base is the served one; the weights differ from it, and answers have the version's name."""
    version = registry.add(adapter, "adapter", base=Base("/gone", fingerprint(NANO)))
    loaded = load_version(Settings(model=NANO), "cpu", version)
    assert loaded.model_version == version.model_version
    changed = [
        name
        for name, tensor in load_osprey(NANO).state_dict().items()
        if not torch.equal(tensor, loaded.model.model.state_dict()[name])
    ]
    assert any("self_attn" in name or "mlp" in name for name in changed)
    assert any(name.startswith("mask_extractor") for name in changed)
    assert not any("vision_tower" in name for name in changed)


def test_base_is_found_by_its_fingerprint(registry, adapter, tmp_path):
    """If OSPREY_MODEL is another checkpoint now, the recorded folder or a registered version is used."""
    moved_on = Settings(model=tmp_path / "another")
    by_path = registry.add(adapter, "adapter", base=Base(str(NANO), fingerprint(NANO)))
    assert load_version(moved_on, "cpu", by_path).model_version == by_path.model_version
    registry.add(NANO, "checkpoint", name="full")
    by_version = registry.add(adapter, "adapter", base=Base("/gone", fingerprint(NANO), version="full"))
    assert load_version(moved_on, "cpu", by_version).model_version == by_version.model_version


def test_adapter_of_another_base_is_refused(registry, adapter):
    """An adapter is never merged into other weights than its own; the message lists the tried folders."""
    version = registry.add(adapter, "adapter", base=Base("/gone", "0" * 40))
    with pytest.raises(
        ModelUnavailable, match=r"adapter for a checkpoint with fingerprint 000000000000; tried .*nano"
    ):
        load_version(Settings(model=NANO), "cpu", version)


def test_command_adds_what_training_wrote(registry, adapter, monkeypatch, tmp_path):
    """`osprey models add`: an adapter with its base's fingerprint, a checkpoint without; another folder is refused."""
    monkeypatch.setenv("OSPREY_REGISTRY", str(registry.folder))
    monkeypatch.setenv("OSPREY_MODEL", str(NANO))
    runner = CliRunner()
    assert "osprey gate v1" in runner.invoke(app, ["models", "add", str(adapter), "--data", "3-abc"]).output
    assert "v2" in runner.invoke(app, ["models", "add", str(NANO), "--parent", "v1"]).output
    first, second = registry.versions()
    assert (first.kind, first.base.fingerprint, first.data_version) == ("adapter", fingerprint(NANO), "3-abc")
    assert (second.kind, second.base, second.parents) == ("checkpoint", None, ("v1",))
    (tmp_path / "notes").mkdir()
    assert runner.invoke(app, ["models", "add", str(tmp_path / "notes")]).exit_code == 1


def test_full_checkpoint_needs_no_base(registry):
    version = registry.add(NANO, "checkpoint")
    settings = Settings(model=CHECKOUT / "nowhere")
    assert load_version(settings, "cpu", version).model_version == version.model_version
