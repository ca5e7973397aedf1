"""Claims about the registry: it lists complete versions only, no kill breaks the pointer, rollback works."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from registry.atomic_writes import Disk
from registry.versions import BASE, Base, Registry, RegistryError

ON = Base(path="/somewhere/base", fingerprint="f" * 40)
DIED = 77


@pytest.fixture
def trained(tmp_path) -> Path:
    folder = tmp_path / "trained"
    (folder / "deeper").mkdir(parents=True)
    (folder / "adapter_config.json").write_text('{"r": 8}')
    (folder / "deeper" / "weights.safetensors").write_bytes(bytes(range(256)) * 20)
    return folder


@pytest.fixture
def registry(tmp_path) -> Registry:
    return Registry(tmp_path / "registry")


def test_version_is_kept_with_all_it_was_added_with(registry, trained):
    """Names count up, content and provenance read back, and a second registry object sees the same."""
    added = registry.add(trained, "adapter", base=ON, data_version="d1", config={"rank": 8}, metrics={"loss": 0.5})
    second = registry.add(trained, "adapter", base=ON, parents=("v1",))
    assert [version.name for version in Registry(registry.folder).versions()] == ["v1", "v2"]
    read = registry.version("v1")
    assert read == added
    assert (read.base, read.data_version, read.config, read.metrics) == (ON, "d1", {"rank": 8}, {"loss": 0.5})
    assert second.parents == ("v1",)
    assert (read.weights / "deeper" / "weights.safetensors").read_bytes() == bytes(range(256)) * 20
    assert read.model_version.startswith("v1@")
    assert registry.champion() is None


def test_promotions_and_rollbacks_are_a_stack(registry, trained):
    """Rollback undoes the last promotion in effect, down to the base; the history has person, time and reason."""
    for _ in range(3):
        registry.add(trained, "adapter", base=ON)
    registry.promote("v1", who="ann", why="first")
    registry.promote("v3", who="bob")
    assert registry.rollback(who="eve", why="worse").name == "v1"
    registry.promote("v2")
    assert registry.earlier_champions() == ("v1", BASE)
    assert registry.rollback().name == "v1"
    assert registry.rollback() is None
    assert registry.champion_name() == BASE
    with pytest.raises(RegistryError, match="nothing to roll back"):
        registry.rollback()
    moves = [(move.action, move.source, move.target) for move in registry.history()]
    assert moves[:3] == [("promote", "base", "v1"), ("promote", "v1", "v3"), ("rollback", "v3", "v1")]
    assert (registry.history()[2].who, registry.history()[2].why) == ("eve", "worse")


def test_base_can_be_promoted(registry, trained):
    """Promoting `base` serves the base checkpoint, and a rollback undoes that."""
    registry.add(trained, "adapter", base=ON)
    registry.promote("v1")
    assert registry.promote(BASE) is None
    assert registry.rollback().name == "v1"


def test_torn_version_is_not_listed_and_not_promoted(registry, trained):
    """With a missing file, a short file or a torn version.json it is not listed; by name, the error has the reason."""
    for _ in range(4):
        registry.add(trained, "adapter", base=ON)
    (registry.version("v1").weights / "adapter_config.json").unlink()
    (registry.version("v2").weights / "adapter_config.json").write_text("{")
    (registry.version("v3").folder / "version.json").write_text('{"name": "v3"')
    assert [version.name for version in registry.versions()] == ["v4"]
    for name in ("v1", "v2", "v3"):
        with pytest.raises(RegistryError, match=f"version '{name}' .* is not complete"):
            registry.promote(name)
    assert registry.champion_name() == BASE


def test_changed_byte_is_found_before_promotion(registry, trained):
    """A version with a changed file of the same size cannot be promoted."""
    registry.add(trained, "adapter", base=ON)
    path = registry.version("v1").weights / "adapter_config.json"
    path.write_text('{"r": 9}')
    with pytest.raises(RegistryError, match="has changed since v1 was added"):
        registry.promote("v1")


@pytest.mark.parametrize("name", ["base", "../v1", "a/b", "", "V1", ".x"])
def test_names_that_are_no_folder_names_are_refused(registry, trained, name):
    """Reserved names, paths, capitals and hidden names can neither be added nor looked up."""
    if name:
        with pytest.raises(RegistryError, match="is not a valid version name"):
            registry.add(trained, "adapter", name=name, base=ON)
    with pytest.raises(RegistryError, match="no version"):
        registry.version(name)


def test_what_cannot_be_added_is_refused(registry, trained, tmp_path):
    """An empty folder, an adapter without a base and a name that is taken are refused."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(RegistryError, match="found no files"):
        registry.add(tmp_path / "empty", "checkpoint")
    with pytest.raises(RegistryError, match="needs its base"):
        registry.add(trained, "adapter")
    registry.add(trained, "checkpoint", name="one")
    with pytest.raises(RegistryError, match="versions never change"):
        registry.add(trained, "checkpoint", name="one")


def test_verdict_is_written_into_the_version(registry, trained):
    """The verdict reads back, and the version string of predictions does not change."""
    registry.add(trained, "adapter", base=ON)
    before = registry.version("v1").model_version
    registry.record_gate("v1", {"passed": False})
    assert registry.version("v1").gate == {"passed": False}
    assert registry.version("v1").model_version == before


def test_pointer_changed_by_hand_is_an_error_with_a_way_out(registry, trained):
    """The error for an unreadable pointer says what to do."""
    registry.add(trained, "adapter", base=ON)
    registry.pointer.write_text("{")
    with pytest.raises(RegistryError, match="or delete it to serve the base checkpoint"):
        registry.champion()


OF_ANOTHER_RELEASE = {
    "schema_version": 1,
    "name": "v1",
    "kind": "adapter",
    "created": "2030-01-01T00:00:00",
    "base": {"path": "/somewhere/base", "fingerprint": "f0", "quantized": True},
    "metrics": {"loss": 0.5},
    "files": {"adapter/weights.bin": {"bytes": 3, "sha256": "aa", "compressed": False}},
    "signature": "a key that this release does not know",
}


def test_version_of_another_release_is_read(registry):
    """Unknown keys in version.json and in its base are ignored; `parents`, `gate` and others take their default."""
    folder = registry.folder / "versions" / "v1"
    (folder / "adapter").mkdir(parents=True)
    (folder / "adapter" / "weights.bin").write_bytes(b"abc")
    (folder / "version.json").write_text(json.dumps(OF_ANOTHER_RELEASE))
    version = registry.version("v1")
    assert (version.base, version.metrics) == (Base("/somewhere/base", "f0"), {"loss": 0.5})
    assert (version.parents, version.gate, version.config, version.data_version) == ((), None, {}, None)
    assert registry.record_gate("v1", {"passed": True}).gate == {"passed": True}


def test_pointer_of_another_release_is_read(registry):
    """Unknown keys in champion.json are ignored; a history and a reason that are missing are empty."""
    registry.folder.mkdir()
    move = {"at": "2030-01-01", "action": "promote", "source": "base", "target": "v1", "ticket": 7}
    registry.pointer.write_text(json.dumps({"champion": "v1", "history": [move], "locked": True}))
    assert registry.champion_name() == "v1"
    assert [(each.target, each.who, each.why) for each in registry.history()] == [("v1", "", "")]
    registry.pointer.write_text('{"champion": "v1"}')
    assert (registry.champion_name(), registry.history()) == ("v1", ())


STORIES = {
    "add": lambda registry, trained: registry.add(trained, "adapter", base=ON),
    "promote": lambda registry, trained: registry.promote("v2"),
    "rollback": lambda registry, trained: registry.rollback(),
    "gate": lambda registry, trained: registry.record_gate("v1", {"passed": True}),
}


@pytest.mark.parametrize("story", STORIES)
def test_death_at_any_step_breaks_nothing(story, tmp_path, trained):
    """A child process exits before its n-th write, fsync or rename, for every n until it finishes.

    For every n, each listed version is complete, the champion is the old or the new one, and the same command
    succeeds afterwards.
    """
    prepared = Registry(tmp_path / "prepared")
    for _ in range(2):
        prepared.add(trained, "adapter", base=ON)
    prepared.promote("v1")
    deaths = 0
    while True:
        registry = Registry(tmp_path / f"registry{deaths}")
        shutil.copytree(prepared.folder, registry.folder)
        before = _state(registry)
        status = _run_and_die_at(deaths, registry.folder, story, trained)
        after = _state(registry)
        if status == 0:
            break
        assert status == DIED
        for version in registry.versions():
            registry.verified(version.name)
        assert after["champion"] in (before["champion"], {"promote": "v2", "rollback": BASE}.get(story))
        assert after["history"][: len(before["history"])] == before["history"]
        # Pointer and history agree: each move has its entry, each entry its move.
        assert after["history"][-1].target == after["champion"]
        if after == before:
            STORIES[story](registry, trained)
        assert _state(registry) != before
        assert not any(path.name.startswith(".adding") for path in (registry.folder / "versions").iterdir()) or (
            story != "add"
        )
        deaths += 1
    assert deaths >= {"add": 15, "promote": 5, "rollback": 5, "gate": 5}[story]


def _state(registry: Registry) -> dict:
    return {
        "champion": registry.champion_name() if registry.champion() is None else registry.champion().name,
        "history": list(registry.history()),
        "versions": [json.dumps(version.to_json()) for version in registry.versions()],
    }


def _run_and_die_at(step: int, folder: Path, story: str, trained: Path) -> int:
    """Return the exit status of a child process that exits before its step number `step`."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    left = step

    def count(_: str) -> None:
        nonlocal left
        if left == 0:
            os._exit(DIED)
        left -= 1

    status = 1
    try:
        STORIES[story](Registry(folder, Disk(count)), trained)
        status = 0
    finally:
        os._exit(status)
