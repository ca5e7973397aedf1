"""From an export version to a candidate in the registry: mix in old data, train from the champion, sit the gate.

    version (worker/export) + replay -> LoRA, projector, mask extractor -> registry -> gate -> perhaps the champion

Every step can be killed. The run's folder is named after what it learns from, so the same call goes on where it was:
training from its newest checkpoint, and a version that is in the registry is not trained again.

Neighbours: `learning/training/replay.py`, `osprey_model/training/train.py`, `registry/versions.py`,
`learning/gate/run_gate.py`; called by `learning/jobs.py` and `osprey finetune`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from job_queue.errors import OspreyError
from learning.corrections.store import Store
from learning.corrections.stored_submissions import submissions_of_store
from learning.export.version import ExportOptions, export_version, read_manifest
from learning.gate.exam import read_base_exam
from learning.gate.gate import Bounds
from learning.training.held_out import held_out_share, learned_with
from learning.training.options import FineTuneOptions
from learning.training.replay import Mixture, write_mixture
from registry.versions import BASE, Base, ModelVersion, Registry
from worker.images.resolver import ImageResolver
from worker.settings import Settings

if TYPE_CHECKING:
    from osprey_model.training.run import TrainingResult, TrainingRun

_LOG = logging.getLogger(__name__)

OnProgress = Callable[[str, int, int], None]  # (what is being done, done, in all)
_RUNS = "runs"
_DATA, _HELD_OUT = "data.json", "held_out.json"


class NothingToLearn(OspreyError):
    """The version has no answers with their images on the training side."""


class FineTuneRefused(OspreyError):
    """A setting is missing, or the champion cannot be trained further; the message says what to do."""


@dataclass(frozen=True, slots=True)
class FineTuned:
    """A candidate in the registry. `gate` is its verdict, None where it was not asked for."""

    version: ModelVersion
    gate: dict[str, Any] | None
    is_new: bool


def finetune(
    settings: Settings,
    store: Store,
    project_id: int,
    options: FineTuneOptions,
    *,
    device: str = "cpu",
    on_progress: OnProgress | None = None,
) -> FineTuned:
    """Export what the store has of a project, train on it, register, and examine the candidate.

    Raises:
        NotCollected: the store knows nothing of the project.
        NothingToLearn, FineTuneRefused, ReplayUnusable, ExportRefused: see there.
        RegistryError, ModelUnavailable, ExamUnusable: from registry and gate.
    """
    report = on_progress or _silent
    report("export", 0, 1)
    revision = store.corrections_since(project_id, 0).revision
    with closing(ImageResolver(settings)) as images:
        submissions, share = submissions_of_store(store, project_id), options.held_out
        if share is None:
            learned = None if settings.registry is None else learned_with(Registry(settings.registry), project_id)
            share = held_out_share(submissions, ExportOptions().seed, Bounds().min_images, at_most=learned)
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
    """Train on an export version, register the result and examine it.

    Args:
        settings: registry, base checkpoint, replay and base set.
        data: the version's folder.
        options: how to train.
        facts: kept in the registry beside the run's own.
        device: of training and gate.
        on_progress: called as (what is being done, done, in all).

    Raises:
        As `finetune`.
    """
    if settings.registry is None:
        raise FineTuneRefused("set OSPREY_REGISTRY to a folder: that is where trained versions go")
    report = on_progress or _silent
    manifest = read_manifest(data)
    if not _has_rows(data / _DATA):
        raise NothingToLearn(
            f"the version {data} has no answers with images on its training side; collect more, or export with images"
        )
    if options.gate and settings.base_set is not None:
        read_base_exam(settings.base_set)  # whoever cannot be examined shall not train for hours first
    registry = Registry(settings.registry)
    champion = registry.champion()
    run_name = _run_name(data.name, manifest, champion, options, settings)
    known = next((each for each in registry.versions() if each.config.get("run") == run_name), None)
    if known is None:
        folder = settings.registry / _RUNS / run_name
        mixture = write_mixture(data / _DATA, settings.replay, options.replay, folder / "data", seed=options.seed)
        run, base = _training_run(settings, data, mixture, champion, options, folder, device)
        result = _train(run, report)
        version = registry.add(
            result.out,
            "adapter",
            base=base,
            data_version=data.name,
            config={"run": run_name, "options": asdict(options), **_mixed(mixture), **(facts or {})},
            metrics=_metrics(result),
            parents=(BASE if champion is None else champion.name,),
        )
        shutil.rmtree(folder)
        _LOG.info("%s is in the registry, trained on %s", version.name, data.name)
    else:
        version = known
    gate = version.gate
    if gate is None and options.gate:
        from learning.gate.run_gate import run_gate

        gate = run_gate(settings, version.name, data=data, device=device, on_progress=on_progress)
    return FineTuned(version, gate, known is None)


def _training_run(
    settings: Settings,
    data: Path,
    mixture: Mixture,
    champion: ModelVersion | None,
    options: FineTuneOptions,
    folder: Path,
    device: str,
) -> tuple[TrainingRun, Base]:
    """The run that continues the champion: its adapter on the same base, or new matrices on a complete checkpoint."""
    from osprey_model.training.run import TrainingRun
    from osprey_model.training.stages import LoraOptions
    from osprey_model.weights.checkpoint import fingerprint

    adapter = None
    if champion is None:
        model, base = settings.model, Base(str(settings.model.resolve()), fingerprint(settings.model))
    elif champion.kind == "checkpoint":
        model = champion.weights
        base = Base(str(model), fingerprint(model), version=champion.name)
    else:
        from worker.load_version import base_folder

        assert champion.base is not None, "the registry refuses adapters without a base"
        model, base, adapter = base_folder(settings, champion), champion.base, champion.weights
    held_out = data / _HELD_OUT
    has_held_out = _has_rows(held_out)
    run = TrainingRun(
        stage="lora",
        model=model,
        data=mixture.path,
        out=folder / "adapter",
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
        adapter=adapter,
        patience=options.patience if has_held_out else None,
        seed=options.seed,
        on_error="skip",
        gradient_checkpointing=options.gradient_checkpointing,
        cache_bytes=options.cache_bytes,
        device="cpu" if device == "cpu" else "auto",
        resume=True,
        progress=False,
    )
    return run, base


def _has_rows(data_config: Path) -> bool:
    """Whether a side has anything: of few images all may be on the other one."""
    return data_config.is_file() and json.loads(data_config.read_text(encoding="utf-8")) != []


def _train(run: TrainingRun, report: OnProgress) -> TrainingResult:
    from osprey_model.training.train import train
    from osprey_model.weights.adapter import AdapterMismatch

    try:
        return train(run, lambda done, total: report("training", done, total))
    except AdapterMismatch as error:
        raise FineTuneRefused(
            f"the champion's adapter has other LoRA options than this run: {error}. Use its options, or promote `base`"
        ) from error


def _run_name(
    data_version: str,
    manifest: dict[str, Any],
    champion: ModelVersion | None,
    options: FineTuneOptions,
    settings: Settings,
) -> str:
    """What decides the result, as a short hash."""
    facts = {
        "data": manifest["files"],
        "champion": BASE if champion is None else champion.model_version,
        "model": str(settings.model),
        "replay": None if settings.replay is None else str(settings.replay),
        # Whether it is examined does not change what is learned.
        "options": {name: value for name, value in asdict(options).items() if name not in ("gate", "cache_bytes")},
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
    """Nobody watches."""
