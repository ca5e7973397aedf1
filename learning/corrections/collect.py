"""From Label Studio into the correction store: one task, the tasks a hint names, or whatever a project has changed.

Label Studio is the source of truth. A hint only says where to look, and every look stores all that is there, so hints
may come twice, late, in any order, for what is gone, or not at all: `reconcile` finds what none has told.

Neighbours: `worker/label_studio/annotations.py` reads the API, `learning/corrections/store.py` keeps,
`learning/jobs.py` and `osprey collect` call.
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

_ATTEMPTS = 8  # at reading a task that others store at the same time
_OVERLAP = timedelta(seconds=60)  # a change that Label Studio commits late carries an earlier time
_NOT_CHECKED = ""  # a stamp that differs from every listed one: the task is read again by the next full reconcile


class Source(Protocol):
    """What is asked of Label Studio: `worker.label_studio.annotations.AnnotationSource`."""

    def project(self, project_id: int) -> dict[str, Any]: ...

    def task(self, task_id: int) -> dict[str, Any] | None: ...

    def stamps(self, project_id: int, updated_after: str | None = None) -> list[TaskStamp]: ...


class Images(Protocol):
    """`worker.images.resolver.ImageResolver`, as far as it is used here."""

    def resolve(self, ref: ImageRef) -> ResolvedImage: ...


@dataclass(frozen=True, slots=True)
class Failed:
    """A task that could not be collected; it is tried again by the next reconcile."""

    task_id: int
    reason: str


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What one `reconcile` did: tasks read, of these changed in the store, removed from it, and failed."""

    read: int = 0
    changed: int = 0
    removed: int = 0
    failed: tuple[Failed, ...] = ()


@dataclass(frozen=True, slots=True)
class _Project:
    id: int
    config: LabelConfig
    config_hash: str


class Collector:
    """Reads from one Label Studio into one store."""

    def __init__(self, store: Store, source: Source, shares: Shares, images: Images | None = None) -> None:
        """Without `images` nobody checks whether a task's image is there and of the size of its masks."""
        self._store = store
        self._source = source
        self._shares = shares
        self._images = images

    def collect(self, project_id: int, task_ids: Sequence[int], annotation_ids: Sequence[int] = ()) -> int:
        """Store the tasks that a hint names, itself or by their annotations; returns how many have changed.

        An annotation that the store does not know starts a reconcile of the project: a deleted one names no task.

        Raises:
            LabelStudioFailed: Label Studio does not answer, or not for this project.
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
        """Store whatever Label Studio has changed since the last time.

        Args:
            project_id: the project.
            full: look at every task instead of those changed since the last time, and for deleted ones.
            again: read annotated tasks also where nothing has changed. Implies `full`.
            on_task: called after each task with how many are done and how many there are.

        Raises:
            LabelStudioFailed: as for `collect`; what was stored until then stays.
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
        # A missing task is only a hint too: `_collect` asks for it before it is marked as deleted.
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
                # One task that nobody foresaw must not keep the others out.
                logger.exception("task %d of project %d is not collected", task_id, project_id)
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
        """Store one task as Label Studio has it; whether that changed anything."""
        for _ in range(_ATTEMPTS):
            since = self._store.revision(project.id)
            task = self._source.task(task_id)
            try:
                if task is None:
                    return self._store.remove_task(project.id, task_id, since)
                if task.get("project", project.id) != project.id:
                    logger.warning("task %d is not of project %d as the hint says", task_id, project.id)
                    return self._collect(self._project(int(task["project"])), task_id)
                return self._store.save(self._state(project, task), since)
            except Superseded:
                continue
        raise OspreyError(
            f"task {task_id} of project {project.id} changed {_ATTEMPTS} times while it was read; "
            "the next reconcile reads it again"
        )

    def _state(self, project: _Project, task: Mapping[str, Any]) -> TaskState:
        state = task_state(project.config, project.config_hash, project.id, task, self._shares)
        if self._images is None or not state.image_url or not any(each.regions for each in state.annotations):
            return state
        return _with_image(state, self._images)


def task_state(
    config: LabelConfig, config_hash: str, project_id: int, task: Mapping[str, Any], shares: Shares
) -> TaskState:
    """A task of Label Studio's API as it is stored. Whatever cannot be used is a problem, never an error."""
    task_id = int(task["id"])
    url = reading.mapping(task.get("data")).get(config.image_key)
    name = image_file_name(task_id, url) if isinstance(url, str) and url else ""
    annotations: list[AnnotationState] = []
    problems: list[Problem] = []
    for annotation in task.get("annotations") or ():
        annotation_id = reading.integer(annotation.get("id")) if isinstance(annotation, Mapping) else None
        if annotation_id is None:
            problems.append(Problem(task_id, None, None, "an annotation without a number"))
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
    """Regions answered without words: what the answer says of itself; a region without one as its task is."""
    by_region: dict[str, list[reading.Item]] = {}
    for item in annotation.get("result") or ():
        if isinstance(item, Mapping) and isinstance(item.get("id"), str):
            by_region.setdefault(item["id"], []).append(item)
    metas = {region.region: reading.meta_of(by_region.get(region.region, ())) for region in regions}
    return frozenset(
        region_id for region_id, meta in metas.items() if (meta.get("blind") is True if meta else is_blind)
    )


def _with_image(state: TaskState, images: Images) -> TaskState:
    """The state with its image's hash, and a problem for each region that does not fit it."""
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
            f"its mask is for an image of {region.image_wh[0]}x{region.image_wh[1]} pixels, the image has "
            f"{size[0]}x{size[1]}",
            "image",
        )
        for each in state.annotations
        for region in each.regions
        if tuple(region.image_wh) != size
    ]
    return replace(state, image_sha256=resolved.sha256, problems=(*state.problems, *other))


def served_projects(projects: Sequence[Mapping[str, Any]]) -> list[int]:
    """The projects whose labeling config can be served: only there are answers of ours to be corrected."""
    found = []
    for project in projects:
        try:
            read_label_config(str(project.get("label_config") or ""))
        except ConfigError as error:
            logger.debug("project %s is not collected: %s", project.get("id"), error)
        else:
            found.append(int(project["id"]))
    return found


def _earlier(updated_at: str) -> str:
    return (datetime.fromisoformat(updated_at) - _OVERLAP).isoformat().replace("+00:00", "Z")
