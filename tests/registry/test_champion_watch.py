"""Claims about following the champion between two jobs; if it does not load, the old version keeps serving."""

from __future__ import annotations

import pytest
from redis import Redis

from job_queue.errors import ModelTooLarge, ModelUnavailable
from registry import champion_watch
from registry.versions import Registry
from tests.support.fake_models import FakeDescriber
from worker.runtime import Loaders, ModelRuntime
from worker.settings import Settings


class Shelf:
    """Makes fake models by version name; versions in `refuses` do not load."""

    def __init__(self) -> None:
        self.refuses: dict[str, list[Exception]] = {}
        self.loaded: list[str] = []

    def make(self, name: str) -> FakeDescriber:
        if self.refuses.get(name):
            raise self.refuses[name].pop(0)
        self.loaded.append(name)
        describer = FakeDescriber()
        describer.model_version = name
        return describer


@pytest.fixture
def registry(tmp_path) -> Registry:
    (tmp_path / "trained").mkdir()
    (tmp_path / "trained" / "config.json").write_text("{}")
    registry = Registry(tmp_path / "registry")
    for _ in range(3):
        registry.add(tmp_path / "trained", "checkpoint")
    return registry


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def runtime(tmp_path, registry, shelf) -> ModelRuntime:
    settings = Settings(cache_dir=tmp_path, registry=registry.folder, device="cpu")
    loaders = Loaders(
        segmenter=lambda settings, device: pytest.fail("not asked for"),
        describer=lambda settings, device: shelf.make("base"),
        version=lambda settings, device, version: shelf.make(version.name),
    )
    return ModelRuntime(settings, ("describe",), Redis(), loaders)


def test_pointer_is_followed_and_loads_once_per_move(runtime, registry, shelf):
    """Promotion and rollback are followed down to the base; without a move nothing is loaded."""
    runtime.load_missing()
    for _ in range(3):
        runtime.follow_champion()
    registry.promote("v1")
    registry.promote("v2")
    runtime.follow_champion()
    runtime.follow_champion()
    assert runtime.model_versions == {"describe": "v2"}
    registry.rollback()
    registry.rollback()
    runtime.follow_champion()
    assert shelf.loaded == ["base", "v2", "base"]


def test_champion_is_served_from_the_start(runtime, registry, shelf):
    """A worker that starts loads the champion, not the base."""
    registry.promote("v3")
    runtime.load_missing()
    assert shelf.loaded == ["v3"]


def test_version_that_does_not_load_is_reported_and_tried_again(runtime, registry, shelf, monkeypatch):
    """The old version serves and the problem names both, until the new one loads."""
    runtime.load_missing()
    told = []
    runtime.on_change = lambda: told.append(runtime.problem)
    shelf.refuses["v1"] = [ModelUnavailable("a shard is missing")]
    registry.promote("v1")
    runtime.follow_champion()
    assert runtime.model_versions == {"describe": "base"}
    assert runtime.problem == "the champion does not load, base still serves: a shard is missing"
    assert not runtime.champion_moved()
    monkeypatch.setattr(champion_watch, "RETRY_S", 0.0)
    shelf.refuses["v1"] = [ModelUnavailable("a shard is missing")]
    registry.pointer.touch()
    runtime.follow_champion()
    runtime.follow_champion()
    assert runtime.model_versions == {"describe": "v1"}
    assert runtime.problem is None
    assert told[-1] is None


def test_torn_pointer_or_version_leaves_the_old_one_serving(runtime, registry):
    """A damaged pointer or version is reported, and the old version keeps serving."""
    registry.promote("v1")
    runtime.load_missing()
    registry.promote("v2")
    (registry.version("v2").weights / "config.json").unlink()
    runtime.follow_champion()
    assert "v2" in runtime.problem
    registry.pointer.write_text("{")
    runtime.follow_champion()
    assert "cannot be read" in runtime.problem
    assert runtime.model_versions == {"describe": "v1"}


def test_worker_that_starts_on_a_broken_champion_serves_the_one_before(runtime, registry, shelf):
    """If the champion does not load at the start, the worker serves the champion before it."""
    registry.promote("v1")
    registry.promote("v2")
    shelf.refuses["v2"] = [ModelUnavailable("damaged")]
    runtime.load_missing()
    assert runtime.model_versions == {"describe": "v1"}
    assert runtime.problem == "the champion does not load, v1 serves instead: damaged"


def test_no_room_for_two_models_drops_the_old_one_first(runtime, registry, shelf):
    """Without memory for two models the old one is dropped first, and reloaded if the new one does not fit either."""
    runtime.load_missing()
    shelf.refuses["v1"] = [ModelTooLarge("full")]
    registry.promote("v1")
    runtime.follow_champion()
    assert runtime.model_versions == {"describe": "v1"}
    shelf.refuses["v2"] = [ModelTooLarge("full"), ModelTooLarge("still full")]
    registry.promote("v2")
    runtime.follow_champion()
    assert runtime.model_versions == {"describe": "v1"}
    assert "still full" in runtime.problem


def test_without_a_registry_nothing_is_looked_up(runtime, shelf, tmp_path):
    """Without a registry the base is served and nothing ever moves."""
    settings = runtime.settings.model_copy(update={"registry": None})
    alone = ModelRuntime(settings, ("describe",), Redis(), Loaders(
        segmenter=lambda settings, device: pytest.fail("not asked for"),
        describer=lambda settings, device: shelf.make("base"),
    ))  # fmt: skip
    alone.load_missing()
    alone.follow_champion()
    assert shelf.loaded == ["base"]
    assert not alone.champion_moved()
