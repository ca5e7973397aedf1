"""Load the registry's champion, or an earlier version if the champion does not load.

A version is a complete checkpoint folder, or an adapter on the base checkpoint that it was trained on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from job_queue.errors import ModelUnavailable
from registry.champion_watch import ChampionWatch
from registry.versions import ModelVersion, RegistryError
from worker.model_protocols import Describer
from worker.osprey_describer import OspreyDescriber
from worker.settings import Settings

_LOG = logging.getLogger(__name__)
WARM_UP_WH = (64, 48)


def load_base(settings: Settings, device: str) -> OspreyDescriber:
    """Load the checkpoint of OSPREY_MODEL.

    Raises:
        ModelUnavailable: the checkpoint does not load.
    """
    return OspreyDescriber.load(settings.model, device)


def load_version(settings: Settings, device: str, version: ModelVersion) -> OspreyDescriber:
    """Load a version; its answers carry `ModelVersion.model_version`.

    Raises:
        ModelUnavailable: the version does not load, or an adapter's base checkpoint is not found.
    """
    if version.kind == "checkpoint":
        return OspreyDescriber.load(version.weights, device, model_version=version.model_version)
    base = base_folder(settings, version)
    return OspreyDescriber.load(base, device, adapter=version.weights, model_version=version.model_version)


def base_folder(settings: Settings, version: ModelVersion) -> Path:
    """Find the checkpoint that an adapter was trained on, by its fingerprint.

    OSPREY_MODEL is tried first, then the folders that the registry recorded.

    Raises:
        ModelUnavailable: none of these folders has the fingerprint.
    """
    from osprey_model.weights.checkpoint import fingerprint

    assert version.base is not None, "the registry refuses adapters without a base"
    tried = []
    for folder in (settings.model, *version.base_folders()):
        try:
            found = fingerprint(folder)
        except OSError as error:
            tried.append(f"{folder} ({error})")
            continue
        if found == version.base.fingerprint:
            return folder
        tried.append(f"{folder} (fingerprint {found[:12]})")
    raise ModelUnavailable(
        f"version {version.name} is an adapter for a checkpoint with fingerprint {version.base.fingerprint[:12]}; "
        f"tried {', '.join(tried)}. Set OSPREY_MODEL to that checkpoint"
    )


@dataclass(frozen=True, slots=True)
class Served:
    """A loaded Osprey with its name in the registry. `problem` is the reason if it is not the champion."""

    describer: Describer
    name: str
    problem: str | None = None


class ChampionLoader(ChampionWatch):
    """Watches the registry's champion and loads it."""

    def __init__(
        self,
        settings: Settings,
        base: Callable[[Settings, str], Describer] = load_base,
        version: Callable[[Settings, str, ModelVersion], Describer] = load_version,
    ) -> None:
        super().__init__(settings.registry)
        self._settings = settings
        self._load_base = base
        self._load_version = version

    def load(self, name: str, device: str) -> Describer:
        """Load a version by its name in the registry, or the base.

        Raises:
            ModelUnavailable: the model does not load.
            RegistryError: the version is not in the registry, or not complete.
        """
        version = self.version(name)
        if version is None:
            describer = self._load_base(self._settings, device)
        else:
            describer = self._load_version(self._settings, device, version)
        # The first forward pass allocates and tunes, so run it before the first click.
        describer.warm(Image.new("RGB", WARM_UP_WH, "gray"), "warm-up")
        return describer

    def load_first(self, device: str, before: Served | None = None) -> Served:
        """Load the champion, else the nearest earlier champion that loads, else the base.

        Args:
            device: the model's device.
            before: the model that serves now; it is kept if it is the nearest that loads.

        Raises:
            ModelUnavailable, RegistryError: none of them loads; the error is the champion's.
        """
        name = self.read()
        try:
            return before if before is not None and before.name == name else Served(self.load(name, device), name)
        except (ModelUnavailable, RegistryError) as error:
            for fallback in (each for each in self.fallbacks() if each != name):
                problem = f"the champion does not load, {fallback} serves instead: {error}"
                try:
                    stays = before is not None and before.name == fallback
                    describer = before.describer if before is not None and stays else self.load(fallback, device)
                except (ModelUnavailable, RegistryError) as another:
                    _LOG.warning("%s does not load either: %s", fallback, another)
                else:
                    self.try_again_later()
                    return Served(describer, fallback, problem)
            raise
