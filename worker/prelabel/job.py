"""The job of the queue `prelabel`, which RQ calls by path: it works a few seconds on a run and enqueues the next job.

A run consists of many short jobs, each of which continues after the last task of the one before. Between two jobs a
worker can be stopped, killed or given another run, and no job reaches RQ's time limit, whatever the project's size.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from typing import Any

from job_queue.contracts import PrelabelJob
from job_queue.errors import OspreyError
from job_queue.failures import record_failure
from job_queue.queue import enqueue
from label_config.reader import ConfigError
from worker.current_runtime import current
from worker.label_studio.prediction_store import prediction_store
from worker.prelabel.annotate import AnnotateOptions
from worker.prelabel.prelabel_runtime import PrelabelRuntime
from worker.prelabel.project import Progress, ProjectPrelabeler
from worker.prelabel.runs import read_run, write_run

_LOG = logging.getLogger(__name__)

SLICE_S = 10.0  # shorter than the supervisor's stop timeout


def prelabel(job_json: dict[str, Any]) -> dict[str, Any]:
    """Work on the run of a `PrelabelJob`, return its state, and enqueue its next job if tasks are left."""
    job, runtime = PrelabelJob.from_json(job_json), current(PrelabelRuntime)
    before = read_run(runtime.redis, job.run_id)
    ends = time.monotonic() + SLICE_S
    has_begun = False

    def should_stop() -> bool:
        return has_begun and time.monotonic() > ends  # after at least one task, so that every run ends

    def show(progress: Progress) -> None:
        nonlocal has_begun
        has_begun = progress.last_task_id is not None
        write_run(runtime.redis, job.run_id, dataclasses.replace(before.and_then(progress), is_ended=False))

    try:
        annotator = runtime.annotator(AnnotateOptions(job.max_regions, job.min_score))
        with prediction_store(runtime.settings) as store:
            progress = ProjectPrelabeler(store, runtime.images, annotator, show, runtime.settings.shares).run(
                job.project_id,
                job.task_ids,
                force=job.force,
                after_task_id=job.after_task_id,
                should_stop=should_stop,
            )
    except (OspreyError, ConfigError, ValueError) as error:
        _LOG.warning("prelabel project_id=%s run=%s: %s", job.project_id, job.run_id, error)
        record_failure(runtime.redis, f"{type(error).__name__}: {error}", None, f"prelabel project {job.project_id}")
        state = dataclasses.replace(read_run(runtime.redis, job.run_id), is_ended=True, error=str(error))
        write_run(runtime.redis, job.run_id, state)
        return {"error": {"kind": type(error).__name__, "message": str(error)}}
    for failure in progress.failures:
        record_failure(runtime.redis, failure.message, failure.task_id, f"prelabel project {job.project_id}")
    state = before.and_then(progress)
    if not progress.is_complete:
        following = dataclasses.replace(job, after_task_id=progress.last_task_id)
        enqueue(runtime.redis, runtime.settings.queue, following)
    write_run(runtime.redis, job.run_id, state)
    return {"ok": {"pushed": state.pushed, "is_ended": state.is_ended}}
