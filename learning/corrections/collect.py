"""Copy submissions from Label Studio to the correction store: the tasks of a hint, or all changes in a project.

Label Studio is the source of truth. A hint, usually a webhook, only names tasks or annotations to read. Each task is
read and stored as a whole, so hints may be repeated, late, out of order, about deleted objects, or missing: `reconcile`
finds the changes that no hint reported.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Protocol

from job_queue.contracts import ImageRef
from job_queue.errors import ImageCorrupt, ImageUnavailable, LabelStudioFailed, OspreyError
from job_queue.task_arms import Shares
from label_config.reader import ConfigError, LabelConfig, read_label_config
from learning.corrections.records import AnnotationState, TaskState
from learning.corrections.store import Store, Superseded
from learning.submitted import items as reading
from learning.submitted.checks import fit_all
from learning.submitted.problems import Problem
from learning.submitted.regions import SubmittedRegion, regions_of
from learning.submitted.submissions import image_file_name
from worker.images.resolver import ResolvedImage
from worker.label_studio.annotations import TaskStamp, stamp_of

logger = logging.getLogger(__name__)

_ATTEMPTS = 8  # to read a task that other processes store at the same time
_OVERLAP = timedelta(seconds=60)  # Label Studio may commit a change later than its `updated_at` says
_NOT_CHECKED = ""  # differs from every stamp of Label Studio, so the next full reconcile reads the task again


class TaskSource(Protocol):
    """The methods of `worker.label_studio.annotations.AnnotationSource` that this module calls."""

    def project(self, project_id: int) -> dict[str, Any]: ...

    def task(self, task_id: int) -> dict[str, Any] | None: ...

    def stamps(self, project_id: int, updated_after: str | None = None) -> list[TaskStamp]: ...


class Images(Protocol):
    """The method of `worker.images.resolver.ImageResolver` that this module calls."""

    def resolve(self, ref: ImageRef) -> ResolvedImage: ...


@dataclass(frozen=True, slots=True)
class Failed:
    """A task that could not be collected; the next reconcile tries it again."""

    task_id: int
    reason: str


@dataclass(frozen=True, slots=True)
class Reconciled:
    """Result of one `reconcile`: tasks read, of these changed in the store or removed from it, and failed ones."""

    read: int = 0
    changed: int = 0
    removed: int = 0
    failed: tuple[Failed, ...] = ()


@dataclass(frozen=True, slots=True)
class _Project:
    """A project with its present labeling config; annotations refer to the config by `config_hash`."""

    id: int
    config: LabelConfig
    config_hash: str


class Collector:
    """Copies submissions from one Label Studio to one store."""

    def __init__(self, store: Store, source: TaskSource, shares: Shares, images: Images | None = None) -> None:
        """With `images`, check that each task's image exists and has the size of its masks."""
        self._store = store
        self._source = source
        self._shares = shares
        self._images = images

    def collect(self, project_id: int, task_ids: Sequence[int], annotation_ids: Sequence[int] = ()) -> int:
        """Store the tasks that a hint names, or the tasks of the annotations that it names.

        If an annotation is not in the store, the project is reconciled, because a hint about a deleted annotation does
        not name its task.

        Returns:
            The number of tasks that have changed in the store.

        Raises:
            LabelStudioFailed: Label Studio cannot be reached or refuses access to the project.
            ConfigError: the project's labeling config cannot be read.
        """
        tasks = dict.fromkeys(task_ids)
        unknown = False
        if not tasks:
            found = [self._store.task_of(project_id, annotation_id) for annotation_id in annotation_ids]
            tasks = dict.fromkeys(task_id for task_id in found if task_id is not None)
            unknown = None in found
        project: _Project | None = None
        num_changed = 0
        for task_id in tasks:
            if project is None:
                project = self._project(project_id)
            num_changed += self._collect(project, task_id)
        if unknown:
            num_changed += self.reconcile(project_id).changed
        return num_changed

    def reconcile(
        self,
        project_id: int,
        *,
        full: bool = False,
        again: bool = False,
        on_task: Callable[[int, int], None] | None = None,
    ) -> Reconciled:
        """Store all changes in Label Studio since the last reconcile.

        Args:
            project_id: the project.
            full: compare all tasks instead of those changed since the last reconcile; also finds deleted tasks.
            again: read every annotated task again, even if it has not changed. Implies `full`.
            on_task: called after each task with the number of tasks done and the total.

        Raises:
            LabelStudioFailed: as for `collect`; tasks stored before the error stay stored.
            ConfigError: as for `collect`.
        """
        project = self._project(project_id)
        full = full or again
        watermark = self._store.watermark(project_id)
        known = self._store.stamps(project_id)
        listed = self._source.stamps(project_id, None if full or watermark is None else _earlier(watermark))
        wanted = [
            stamp.task_id
            for stamp in listed
            if (stamp.annotation_ids or stamp.task_id in known) and (again or known.get(stamp.task_id) != stamp.text)
        ]
        # Tasks missing in the list: `_collect` asks Label Studio for each before it marks it as deleted.
        missing = set(known) - {stamp.task_id for stamp in listed} if full or watermark is None else set()
        num_changed, num_removed, failed = 0, 0, []
        for done, task_id in enumerate([*wanted, *sorted(missing)], start=1):
            try:
                changed = self._collect(project, task_id)
                num_changed += changed
                num_removed += changed and task_id in missing
            except LabelStudioFailed:
                raise
            except Exception as error:
                # An unexpected error in one task must not stop the others.
                logger.exception("task %d of project %d could not be collected", task_id, project_id)
                failed.append(Failed(task_id, f"{type(error).__name__}: {error}"))
            if on_task is not None:
                on_task(done, len(wanted) + len(missing))
        if listed and not failed:
            latest = max(stamp.updated_at for stamp in listed)
            if watermark is None or latest > watermark:
                self._store.set_watermark(project_id, latest)
        return Reconciled(len(wanted) + len(missing), num_changed, num_removed, tuple(failed))

    def _project(self, project_id: int) -> _Project:
        answer = self._source.project(project_id)
        xml = answer["label_config"]
        config = read_label_config(xml)
        config_hash = self._store.note_project(project_id, str(answer.get("title") or ""), xml)
        return _Project(project_id, config, config_hash)

    def _collect(self, project: _Project, task_id: int) -> bool:
        """Store one task as Label Studio has it; return whether that changed the store."""
        for _ in range(_ATTEMPTS):
            since = self._store.revision(project.id)
            task = self._source.task(task_id)
            try:
                if task is None:
                    return self._store.remove_task(project.id, task_id, since)
                if task.get("project", project.id) != project.id:
                    logger.warning("task %d does not belong to project %d, as the hint claims", task_id, project.id)
                    return self._collect(self._project(int(task["project"])), task_id)
                return self._store.save(self._state(project, task), since)
            except Superseded:
                continue
        raise OspreyError(
            f"task {task_id} of project {project.id} changed during each of {_ATTEMPTS} attempts to read it; "
            "the next reconcile tries again"
        )

    def _state(self, project: _Project, task: Mapping[str, Any]) -> TaskState:
        state = task_state(project.config, project.config_hash, project.id, task, self._shares)
        if self._images is None or not state.image_url or not any(each.regions for each in state.annotations):
            return state
        return _with_image(state, self._images)


def task_state(
    config: LabelConfig, config_hash: str, project_id: int, task: Mapping[str, Any], shares: Shares
) -> TaskState:
    """Convert a task of Label Studio's API to the form that the store keeps.

    Anything that cannot be used is recorded as a problem; it raises no error.
    """
    task_id = int(task["id"])
    url = reading.mapping(task.get("data")).get(config.image_key)
    name = image_file_name(task_id, url) if isinstance(url, str) and url else ""
    annotations: list[AnnotationState] = []
    problems: list[Problem] = []
    for annotation in task.get("annotations") or ():
        annotation_id = reading.integer(annotation.get("id")) if isinstance(annotation, Mapping) else None
        if annotation_id is None:
            problems.append(Problem(task_id, None, None, "an annotation has no number"))
            continue
        state, complaints = _annotation_state(config, task, annotation, annotation_id, name)
        if not name and not state.is_skipped:
            missing = f"the task's data has no image under {config.image_key!r}"
            complaints.append(Problem(task_id, annotation_id, None, missing, "image"))
        blind = _blind_regions(annotation, state.regions, is_blind=shares.is_blind(project_id, task_id))
        annotations.append(replace(state, blind=blind))
        problems += complaints
    return TaskState(
        project_id=project_id,
        task_id=task_id,
        stamp=stamp_of(task).text,
        config_hash=config_hash,
        image_url=url if isinstance(url, str) else "",
        image_name=name,
        arm=shares.arm(project_id, task_id),
        annotations=tuple(sorted(annotations, key=lambda each: each.annotation_id)),
        problems=tuple(problems),
    )


def _annotation_state(
    config: LabelConfig,
    task: Mapping[str, Any],
    annotation: Mapping[str, Any],
    annotation_id: int,
    image_name: str,
) -> tuple[AnnotationState, list[Problem]]:
    regions: list[SubmittedRegion] = []
    problems: list[Problem] = []
    if not annotation.get("was_cancelled"):
        regions, problems = regions_of(config, task, annotation, image_name)
        problems += fit_all(config, regions)[1]
    seen = {name: value for name, value in annotation.items() if name in _KEPT_KEYS}
    content = json.dumps([seen, reading.annotator_of(annotation), image_name], sort_keys=True, default=str)
    return (
        AnnotationState(
            annotation_id=annotation_id,
            digest=hashlib.sha256(content.encode()).hexdigest(),
            annotator=reading.annotator_of(annotation),
            created_at=reading.string(annotation.get("created_at")),
            updated_at=reading.string(annotation.get("updated_at")),
            lead_time_s=reading.number(annotation.get("lead_time")),
            is_skipped=bool(annotation.get("was_cancelled")),
            is_complete=not any(problem.kind == "control" for problem in problems),
            regions=tuple(regions),
        ),
        problems,
    )


_KEPT_KEYS = frozenset({"result", "was_cancelled", "created_at", "updated_at", "lead_time", "ground_truth"})


def _blind_regions(
    annotation: Mapping[str, Any], regions: Sequence[SubmittedRegion], *, is_blind: bool
) -> frozenset[str]:
    """Return the ids of the regions whose fields were left empty.

    The region's meta says it for regions that a backend answered. For others, `is_blind` of the task is used.
    """
    by_region: dict[str, list[reading.Item]] = {}
    for item in annotation.get("result") or ():
        if isinstance(item, Mapping) and isinstance(item.get("id"), str):
            by_region.setdefault(item["id"], []).append(item)
    metas = {region.region: reading.meta_of(by_region.get(region.region, ())) for region in regions}
    return frozenset(
        region_id for region_id, meta in metas.items() if (meta.get("blind") is True if meta else is_blind)
    )


def _with_image(state: TaskState, images: Images) -> TaskState:
    """Return the state with its image's hash, and a problem for each region whose mask does not fit the image."""
    try:
        resolved = images.resolve(ImageRef(state.image_url, state.task_id, state.project_id))
    except (ImageUnavailable, ImageCorrupt) as error:
        gone = [
            Problem(state.task_id, each.annotation_id, region.region, str(error), "image")
            for each in state.annotations
            for region in each.regions
        ]
        return replace(state, stamp=_NOT_CHECKED, problems=(*state.problems, *gone))
    size = resolved.image.size
    other = [
        Problem(
            state.task_id,
            each.annotation_id,
            region.region,
            f"its mask has {region.image_wh[0]}x{region.image_wh[1]} pixels, the image has {size[0]}x{size[1]}",
            "image",
        )
        for each in state.annotations
        for region in each.regions
        if tuple(region.image_wh) != size
    ]
    return replace(state, image_sha256=resolved.sha256, problems=(*state.problems, *other))


def served_projects(projects: Sequence[Mapping[str, Any]]) -> list[int]:
    """Return the projects whose labeling config the backend supports; only those can contain corrections."""
    found = []
    for project in projects:
        try:
            read_label_config(str(project.get("label_config") or ""))
        except ConfigError as error:
            logger.debug("project %s is skipped, its labeling config is not supported: %s", project.get("id"), error)
        else:
            found.append(int(project["id"]))
    return found


def _earlier(updated_at: str) -> str:
    return (datetime.fromisoformat(updated_at) - _OVERLAP).isoformat().replace("+00:00", "Z")
