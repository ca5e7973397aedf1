"""Pre-annotate a Label Studio project: make a prediction for every task that has none of the current model.

Label Studio itself holds what is done. The next run therefore continues one that was killed, and two runs push nothing
twice. A task that fails is reported; the run continues.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from job_queue.contracts import ImageRef
from job_queue.errors import OspreyError
from job_queue.task_arms import NO_SHARES, Shares, queue_score
from job_queue.task_image import image_ref
from label_config.reader import LabelConfig, read_label_config
from worker.images.resolver import ResolvedImage
from worker.label_studio.prediction_store import PredictionsRefused
from worker.prelabel.annotate import AnnotatedImage, ImageAnnotator
from worker.prelabel.predictions import prediction_of

_LOG = logging.getLogger(__name__)

_BATCH = 20  # predictions of 50 brush regions are a few megabytes
_PUSH_EVERY_S = 30.0  # a kill loses at most this much work


class Store(Protocol):
    """The methods of `worker.label_studio.prediction_store.PredictionStore` that are used here."""

    def label_config(self, project_id: int) -> str: ...

    def tasks(self, project_id: int) -> list[dict[str, Any]]: ...

    def tasks_with(
        self, project_id: int, model_version: str, among: Collection[int] | None = None
    ) -> frozenset[int]: ...

    def push(self, project_id: int, predictions: list[dict[str, Any]]) -> int: ...

    def remove(self, task_id: int, model_version: str) -> None: ...


class Resolver(Protocol):
    """The method of `worker.images.resolver.ImageResolver` that is used here."""

    def resolve(self, ref: ImageRef) -> ResolvedImage: ...


@dataclass(frozen=True, slots=True)
class TaskFailure:
    """Why a task has no prediction."""

    task_id: int
    message: str


@dataclass(slots=True)
class Progress:
    """What a run has done so far. `skipped` tasks already had a prediction of the model.

    `open` counts the tasks that had none when the run began. Another run can continue after `last_task_id`.
    """

    total: int = 0
    open: int = 0
    skipped: int = 0
    pushed: int = 0
    regions: int = 0
    failures: list[TaskFailure] = field(default_factory=list)
    annotated: int = 0  # pushed, or about to be
    last_task_id: int | None = None
    is_complete: bool = False


class ProjectPrelabeler:
    """One run over one project."""

    def __init__(
        self,
        store: Store,
        images: Resolver,
        annotator: ImageAnnotator,
        on_progress: Callable[[Progress], None] = lambda _: None,
        shares: Shares = NO_SHARES,
    ) -> None:
        """`on_progress` is called after every task and every push; `shares` decides which tasks are blind."""
        self._store = store
        self._images = images
        self._annotator = annotator
        self._on_progress = on_progress
        self._shares = shares
        self._scores: list[float] = []  # of this run's tasks so far; the random arm draws from them

    def run(
        self,
        project_id: int,
        task_ids: Collection[int] | None = None,
        *,
        force: bool = False,
        after_task_id: int | None = None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Progress:
        """Pre-annotate the tasks that have no prediction of the model.

        Args:
            project_id: Label Studio's id.
            task_ids: only these tasks; one that is not in the project is a failure. None: all.
            force: replace predictions of the same model version.
            after_task_id: leave out the tasks up to this one, where an earlier run stopped.
            should_stop: called before every task; True ends the run after pushing what is done.

        Raises:
            LabelStudioFailed: Label Studio does not answer; pushed predictions stay and the next run continues.
            ConfigError: the project's labeling config cannot be served.
        """
        config = read_label_config(self._store.label_config(project_id))
        progress = Progress()
        tasks = list(self._wanted(project_id, task_ids, progress))
        progress.total = len(tasks) + len(progress.failures)
        tasks = [task for task in tasks if after_task_id is None or task["id"] > after_task_id]
        version = self._annotator.model_version
        done = frozenset() if force else self._store.tasks_with(project_id, version)
        pushing = _Pushing(self._store, project_id, version, progress, force=force)
        progress.open = sum(task["id"] not in done for task in tasks) + len(progress.failures)
        self._on_progress(progress)
        try:
            for task in tasks:
                if should_stop():
                    break
                if task["id"] in done:
                    progress.skipped += 1
                else:
                    self._annotate(task, config, pushing, progress)
                    if pushing.is_due:
                        pushing.push()
                progress.last_task_id = task["id"]
                self._on_progress(progress)
            else:
                progress.is_complete = True
        finally:  # also on Ctrl-C
            pushing.push()
        self._on_progress(progress)
        return progress

    def _wanted(
        self, project_id: int, task_ids: Collection[int] | None, progress: Progress
    ) -> Iterator[dict[str, Any]]:
        tasks = self._store.tasks(project_id)
        if task_ids is None:
            yield from tasks
            return
        yield from (task for task in tasks if task["id"] in task_ids)
        for task_id in sorted(set(task_ids) - {task["id"] for task in tasks}):
            progress.failures.append(TaskFailure(task_id, f"project {project_id} has no such task"))

    def _annotate(self, task: dict[str, Any], config: LabelConfig, pushing: _Pushing, progress: Progress) -> None:
        task_id = int(task["id"])
        try:
            annotated = self._annotator.annotate(self._images.resolve(image_ref(task, config)), config)
            pushing.add(self._prediction(config, annotated, pushing.project_id, task_id))
        except (OspreyError, ValueError) as error:
            progress.failures.append(TaskFailure(task_id, f"{type(error).__name__}: {error}"))
            _LOG.info("task_id=%s is not pre-annotated: %s: %s", task_id, type(error).__name__, error)
        except (RuntimeError, MemoryError, OSError) as error:  # for example an image too large for the device
            progress.failures.append(TaskFailure(task_id, f"{type(error).__name__}: {error}"))
            _LOG.exception("task_id=%s is not pre-annotated", task_id)
        else:
            progress.annotated += 1
            progress.regions += len(annotated.regions)

    def _prediction(
        self, config: LabelConfig, annotated: AnnotatedImage, project_id: int, task_id: int
    ) -> dict[str, Any]:
        queue = queue_score(self._shares, project_id, task_id, annotated.score, self._scores)
        self._scores.append(annotated.score)
        blind = self._shares.is_blind(project_id, task_id)
        return prediction_of(config, annotated, task_id, blind=blind, queue=queue)


class _Pushing:
    """Predictions that wait to be pushed, in batches."""

    def __init__(self, store: Store, project_id: int, model_version: str, progress: Progress, *, force: bool) -> None:
        self._store = store
        self.project_id = project_id
        self._model_version = model_version
        self._progress = progress
        self._force = force
        self._waiting: list[dict[str, Any]] = []
        self._since = time.monotonic()

    @property
    def is_due(self) -> bool:
        return len(self._waiting) >= _BATCH or time.monotonic() - self._since > _PUSH_EVERY_S

    def add(self, prediction: dict[str, Any]) -> None:
        self._waiting.append(prediction)

    def push(self) -> None:
        """Push the waiting predictions, except for tasks that another run has pre-annotated in the meantime."""
        self._since = time.monotonic()
        batch, self._waiting = self._waiting, []
        if not batch:
            return
        ids = {prediction["task"] for prediction in batch}
        if self._force:
            for task_id in sorted(ids):
                self._store.remove(task_id, self._model_version)
        else:
            served = self._stored(ids)
            batch = [prediction for prediction in batch if prediction["task"] not in served]
            self._progress.skipped += len(served)
        if batch:
            self._push(batch)

    def _push(self, batch: list[dict[str, Any]]) -> None:
        try:
            created = self._store.push(self.project_id, batch)
        except PredictionsRefused as refusal:
            if len(batch) == 1:
                self._progress.failures.append(TaskFailure(batch[0]["task"], str(refusal)))
                return
            for prediction in batch:  # Label Studio refuses the whole batch if one prediction is invalid
                self._push([prediction])
            return
        if created != len(batch):
            stored = self._stored({prediction["task"] for prediction in batch})
            for prediction in batch:
                if prediction["task"] not in stored:
                    message = "Label Studio left the prediction out as invalid; the reason is in its log"
                    self._progress.failures.append(TaskFailure(prediction["task"], message))
            created = len(stored)
        self._progress.pushed += created

    def _stored(self, ids: Collection[int]) -> frozenset[int]:
        return self._store.tasks_with(self.project_id, self._model_version, ids)
