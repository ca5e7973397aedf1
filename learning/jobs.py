"""The job functions of the queues `data` and `train`, which RQ calls by path.

Each takes the JSON of its job and returns plain JSON: `{"ok": result}`. A failure is logged, shown in `osprey status`
and raised, so that RQ runs the job once more.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import closing
from typing import Any

from redis.exceptions import RedisError

from job_queue.contracts import CollectJob, ExportJob, FineTuneJob, ReconcileJob, TriggerJob
from job_queue.errors import OspreyError
from job_queue.failures import record_failure
from job_queue.finetune_progress import ProgressNote
from job_queue.queue import enqueue
from label_config.reader import ConfigError
from learning.corrections.collect import served_projects
from learning.corrections.stored_submissions import submissions_of_store
from learning.export.version import ExportOptions, export_version
from learning.runtime import DataRuntime, TrainRuntime
from learning.training.triggers import due_projects
from registry.versions import Registry
from worker.current_runtime import current
from worker.images.resolver import ImageResolver

_LOG = logging.getLogger(__name__)


def collect(job_json: dict[str, Any]) -> dict[str, Any]:
    """Run a `CollectJob`: copy the changed tasks into the store; return how many tasks changed there."""
    job = CollectJob.from_json(job_json)
    task_id = job.task_ids[0] if len(job.task_ids) == 1 else None

    def work(runtime: DataRuntime) -> dict[str, Any]:
        with runtime.collector() as collector:
            return {"changed": collector.collect(job.project_id, job.task_ids, job.annotation_ids)}

    return _reported(f"collect project {job.project_id}", task_id, work)


def reconcile(job_json: dict[str, Any]) -> dict[str, Any]:
    """Run a `ReconcileJob`: look for changes that no webhook reported; return counts of tasks.

    A failure in one project is recorded and counted, and the other projects are still processed.
    """
    job = ReconcileJob.from_json(job_json)

    def work(runtime: DataRuntime) -> dict[str, Any]:
        done = {"read": 0, "changed": 0, "removed": 0, "failed": 0}
        with runtime.collector() as collector, runtime.source() as source:
            only = (job.project_id,) if job.project_id is not None else runtime.settings.projects
            for project_id in only or served_projects(list(source.projects())):
                try:
                    found = collector.reconcile(project_id, full=job.full)
                except (ConfigError, OspreyError) as error:
                    _note(runtime, f"reconcile project {project_id}", None, error)
                    done["failed"] += 1
                    continue
                for failed in found.failed:
                    record_failure(runtime.redis, failed.reason, failed.task_id, f"reconcile project {project_id}")
                done["read"] += found.read
                done["changed"] += found.changed
                done["removed"] += found.removed
                done["failed"] += len(found.failed)
        return done

    return _reported("reconcile", None, work)


def export(job_json: dict[str, Any]) -> dict[str, Any]:
    """Run an `ExportJob`: write a data version; return its name, whether it is new, and its counts."""
    job = ExportJob.from_json(job_json)
    options = ExportOptions(job.layout, job.held_out_share, job.seed, job.edited_weight)

    def work(runtime: DataRuntime) -> dict[str, Any]:
        submissions = submissions_of_store(runtime.store, job.project_id)
        with closing(ImageResolver(runtime.settings)) as images:
            version = export_version(
                submissions, runtime.settings.exports, options, images if job.with_images else None
            )
        return {"version": version.path.name, "is_new": version.is_new, "counts": version.manifest["counts"]}

    return _reported(f"export project {job.project_id}", None, work)


def trigger(job_json: dict[str, Any]) -> dict[str, Any]:
    """Run a `TriggerJob`: enqueue a fine-tune for each project with enough corrections; return these projects."""
    job = TriggerJob.from_json(job_json)

    def work(runtime: DataRuntime) -> dict[str, Any]:
        settings = runtime.settings
        if settings.registry is None:
            return {"due": []}
        at_least = 1 if job.at_any_count else settings.finetune_after
        due = [] if at_least is None else list(due_projects(runtime.store, Registry(settings.registry), at_least))
        for each in due:
            reason = f"{each.corrected_regions} corrected regions"
            enqueue(runtime.redis, settings.queue, FineTuneJob(each.project_id, reason))
        return {"due": [each.project_id for each in due]}

    return _reported("trigger", None, work)


def finetune(job_json: dict[str, Any]) -> dict[str, Any]:
    """Run a `FineTuneJob`: train and evaluate a candidate; return its name and whether it passed the gate.

    If the worker is killed, the next run of the job continues from the last checkpoint.
    """
    job = FineTuneJob.from_json(job_json)

    def work(runtime: DataRuntime) -> dict[str, Any]:
        from learning.training.finetune import finetune as train

        assert isinstance(runtime, TrainRuntime), "fine-tunes are jobs of the queue train"
        note = ProgressNote(runtime.redis, job.project_id)
        note.step("collect", 0, 1)
        try:
            with runtime.collector() as collector:
                collector.reconcile(job.project_id)
            found = train(
                runtime.settings, runtime.store, job.project_id, runtime.options,
                device=runtime.claim_device(), on_progress=note.step,
            )  # fmt: skip
        except Exception as error:
            note.end(f"failed: {type(error).__name__}: {error}")
            raise
        passed = None if found.gate is None else bool(found.gate["passed"])
        verdict = "was not evaluated" if passed is None else "passed the gate" if passed else "did not pass the gate"
        note.end(f"{found.version.name} {verdict}")
        return {"version": found.version.name, "passed": passed, "is_new": found.is_new}

    return _reported(f"fine-tune project {job.project_id} ({job.reason})", None, work)


def _reported(name: str, task_id: int | None, work: Callable[[DataRuntime], dict[str, Any]]) -> dict[str, Any]:
    """Run a job; log a failure, record it for `osprey status`, and raise it, so that RQ runs the job once more."""
    runtime = current(DataRuntime)
    try:
        done = work(runtime)
    except RedisError:
        raise  # without Redis no failure can be recorded; RQ and the worker's loop handle it
    except Exception as error:
        _note(runtime, name, task_id, error)
        raise
    _LOG.info("%s: %s", name, done)
    return {"ok": done}


def _note(runtime: DataRuntime, name: str, task_id: int | None, error: Exception) -> None:
    if isinstance(error, (ConfigError, OspreyError)):
        _LOG.warning("%s: %s: %s", name, type(error).__name__, error)
    else:
        _LOG.exception(name)
    record_failure(runtime.redis, f"{type(error).__name__}: {error}", task_id, name)
