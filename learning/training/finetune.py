"""Fine-tune the champion on an export version and register the result as a candidate.

    export version + replay -> LoRA, projector, mask extractor -> registry -> gate -> possibly the champion

Every step can be killed. The folder of a run is named by a hash of its inputs, so the same call continues the run:
training resumes from the latest checkpoint, and a registered version is not trained again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from job_queue.errors import OspreyError
from learning.corrections.store import Store
from learning.corrections.stored_submissions import submissions_of_store
from learning.export.version import ExportOptions, export_version, read_manifest
from learning.gate.exam import read_base_exam
from learning.gate.gate import Bounds
from learning.settings import Settings
from learning.training.held_out import held_out_share, trained_share
from learning.training.options import FineTuneOptions
from learning.training.replay import Mixture, write_mixture
from registry.sets_in_making import wait_for_sets
from registry.versions import BASE, Base, ModelVersion, Registry
from worker.images.resolver import ImageResolver

if TYPE_CHECKING:
    from osprey_model.training.run import TrainingResult, TrainingRun

_LOG = logging.getLogger(__name__)

OnProgress = Callable[[str, int, int], None]  # (name of the step, done, total)
_RUNS = "runs"
_DATA, _HELD_OUT = "data.json", "held_out.json"


class NothingToLearn(OspreyError):
    """The export version has no answers with images on its training side."""


class FineTuneRefused(OspreyError):
    """A setting is missing, or the champion cannot be trained further. The message says what to do."""


@dataclass(frozen=True, slots=True)
class FineTuned:
    """A candidate in the registry. `gate` is its verdict; None if the gate has not run."""

    version: ModelVersion
    gate: dict[str, Any] | None
    is_new: bool


@dataclass(frozen=True, slots=True)
class _Start:
    """The weights that a run starts from: a checkpoint, and the adapter on it that is trained further."""

    model: Path
    base: Base
    adapter: Path | None = None


def finetune(
    settings: Settings,
    store: Store,
    project_id: int,
    options: FineTuneOptions,
    *,
    device: str = "cpu",
    on_progress: OnProgress | None = None,
) -> FineTuned:
    """Export a project from the store, train on it, register the result and run the gate.

    Raises:
        NotCollected: the store has no data of the project.
        NothingToLearn, FineTuneRefused, ReplayUnusable, ExportRefused: see these classes.
        RegistryError, ModelUnavailable, ExamUnusable: from registry and gate.
    """
    report = on_progress or _silent
    report("export", 0, 1)
    revision = store.corrections_since(project_id, 0).revision
    with closing(ImageResolver(settings)) as images:
        submissions, share = submissions_of_store(store, project_id), options.held_out
        if share is None:
            trained = None if settings.registry is None else trained_share(Registry(settings.registry), project_id)
            share = held_out_share(submissions, ExportOptions().seed, Bounds().min_images, at_most=trained)
        version = export_version(submissions, settings.exports, ExportOptions(held_out_share=share), images)
    report("export", 1, 1)
    facts = {"project": project_id, "store_revision": revision, "held_out_share": share}
    return train_candidate(settings, version.path, options, facts=facts, device=device, on_progress=on_progress)


def train_candidate(
    settings: Settings,
    data: Path,
    options: FineTuneOptions,
    *,
    facts: dict[str, Any] | None = None,
    device: str = "cpu",
    on_progress: OnProgress | None = None,
) -> FineTuned:
    """Train on an export version, register the result and run the gate.

    Args:
        settings: registry, base checkpoint, replay and base set.
        data: folder of the export version.
        options: how to train.
        facts: stored in the registry with the facts of the run.
        device: of training and gate.
        on_progress: called as (name of the step, done, total).

    Raises:
        OspreyError: as for `finetune`, without NotCollected.
    """
    if settings.registry is None:
        raise FineTuneRefused("set OSPREY_REGISTRY to the folder for trained versions")
    report = on_progress or _silent
    manifest = read_manifest(data)
    if not _has_rows(data / _DATA):
        raise NothingToLearn(
            f"the version {data} has no answers with images on its training side; collect more, or export with images"
        )
    wait_for_sets((settings.base_set if options.gate else None, settings.replay), report)
    if options.gate and settings.base_set is not None:
        read_base_exam(settings.base_set)  # fail before training if the gate could not run afterwards
    registry = Registry(settings.registry)
    champion = registry.champion()
    run_name = _run_name(data.name, manifest, champion, options, settings)
    known = next((each for each in registry.versions() if each.config.get("run") == run_name), None)
    if known is None:
        folder = settings.registry / _RUNS / run_name
        mixture = write_mixture(data / _DATA, settings.replay, options.replay, folder / "data", seed=options.seed)
        start = _start_of(settings, champion)
        result = _train(_training_run(start, data, mixture, options, folder / "adapter", device), report)
        version = registry.add(
            result.out,
            "adapter",
            base=start.base,
            data_version=data.name,
            config={"run": run_name, "options": options.model_dump(), **_mixed(mixture), **(facts or {})},
            metrics=_metrics(result),
            parents=(BASE if champion is None else champion.name,),
        )
        shutil.rmtree(folder)
        _LOG.info("registered %s, trained on %s", version.name, data.name)
    else:
        version = known
    gate = version.gate
    if gate is None and options.gate:
        from learning.gate.run_gate import run_gate

        gate = run_gate(settings, version.name, data=data, device=device, on_progress=on_progress)
    return FineTuned(version, gate, known is None)


def _start_of(settings: Settings, champion: ModelVersion | None) -> _Start:
    """Return the weights of the champion: new matrices on a complete checkpoint, or its adapter on the same base."""
    from osprey_model.weights.checkpoint import fingerprint

    if champion is None:
        return _Start(settings.model, Base(str(settings.model.resolve()), fingerprint(settings.model)))
    if champion.kind == "checkpoint":
        model = champion.weights
        return _Start(model, Base(str(model), fingerprint(model), version=champion.name))
    from worker.load_version import base_folder

    assert champion.base is not None, "the registry refuses adapters without a base"
    return _Start(base_folder(settings, champion), champion.base, champion.weights)


def _training_run(
    start: _Start, data: Path, mixture: Mixture, options: FineTuneOptions, out: Path, device: str
) -> TrainingRun:
    """Return the run that trains on the mixture and measures the loss on the held-out side of `data`."""
    from osprey_model.training.run import TrainingRun
    from osprey_model.training.stages import LoraOptions

    held_out = data / _HELD_OUT
    has_held_out = _has_rows(held_out)
    return TrainingRun(
        stage="lora",
        model=start.model,
        data=mixture.path,
        out=out,
        held_out=held_out if has_held_out else None,
        epochs=options.epochs,
        max_steps=options.max_steps,
        learning_rate=options.learning_rate,
        batch_size=options.batch_size,
        device_batch_size=options.device_batch_size,
        lora=LoraOptions(
            options.rank,
            options.alpha,
            options.dropout,
            vocabulary=options.vocabulary,
            whole_rate=options.whole_rate,
        ),
        adapter=start.adapter,
        patience=options.patience if has_held_out else None,
        seed=options.seed,
        on_error="skip",
        gradient_checkpointing=options.gradient_checkpointing,
        cache_bytes=options.cache_bytes,
        device="cpu" if device == "cpu" else "auto",
        resume=True,
        progress=False,
    )


def _has_rows(data_config: Path) -> bool:
    """Return whether a data config lists files; with few images one side of the split may be empty."""
    return data_config.is_file() and json.loads(data_config.read_text(encoding="utf-8")) != []


def _train(run: TrainingRun, report: OnProgress) -> TrainingResult:
    from osprey_model.training.train import train
    from osprey_model.weights.adapter import AdapterMismatch

    try:
        return train(run, lambda done, total: report("training", done, total))
    except AdapterMismatch as error:
        raise FineTuneRefused(
            f"this run has other LoRA options than the champion's adapter: {error}. Use the same, or promote `base`"
        ) from error


def _run_name(
    data_version: str,
    manifest: dict[str, Any],
    champion: ModelVersion | None,
    options: FineTuneOptions,
    settings: Settings,
) -> str:
    """Return the name of a run: the data version, and a hash of everything that decides the result."""
    facts = {
        "data": manifest["files"],
        "champion": BASE if champion is None else champion.model_version,
        "model": str(settings.model),
        "replay": None if settings.replay is None else str(settings.replay),
        # These two do not change the trained weights.
        "options": {name: value for name, value in options.model_dump().items() if name not in ("gate", "cache_bytes")},
    }
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:12]
    return f"{data_version}-{digest}"


def _metrics(result: TrainingResult) -> dict[str, Any]:
    return {
        "held_out_loss": result.best_held_out_loss,
        "final_loss": result.final_loss,
        "steps": result.steps,
        "stopped_early": result.stopped_early,
        "seconds": round(result.seconds, 1),
        "bad_entries": len(result.bad_entries) + result.num_replaced,
    }


def _mixed(mixture: Mixture) -> dict[str, Any]:
    return {"entries": mixture.new, "replayed": mixture.replayed}


def _silent(_what: str, _done: int, _total: int) -> None:
    """Do nothing: the default for `on_progress`."""
