"""A registered version -> a loaded Osprey: a complete folder as it is, an adapter on the base it was trained on.

Neighbours: `worker/runtime.py` serves it, `learning/gate/evaluate.py` asks it.
"""

from __future__ import annotations

from pathlib import Path

from job_queue.errors import ModelUnavailable
from registry.versions import ModelVersion
from worker.osprey_describer import OspreyDescriber
from worker.settings import Settings


def load_version(settings: Settings, device: str, version: ModelVersion) -> OspreyDescriber:
    """Load a version; its answers carry `ModelVersion.model_version`.

    Raises:
        ModelUnavailable: it does not load, or an adapter's base checkpoint is not to be found.
    """
    if version.kind == "checkpoint":
        return OspreyDescriber.load(version.weights, device, model_version=version.model_version)
    base = base_folder(settings, version)
    return OspreyDescriber.load(base, device, adapter=version.weights, model_version=version.model_version)


def base_folder(settings: Settings, version: ModelVersion) -> Path:
    """The folder whose weights are those the adapter was trained on: the one served as base, else the recorded one."""
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
        f"looked at {', '.join(tried)}. Set OSPREY_MODEL to that checkpoint"
    )
