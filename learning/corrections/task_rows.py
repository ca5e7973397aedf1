"""Write a task as rows of the correction store, inside a transaction of `store.py`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from learning.corrections.records import AnnotationState, TaskState
from learning.corrections.schema import AnnotationRow, PairRow, ProblemRow, RegionRow, TaskRow
from learning.submitted.regions import SubmittedRegion


def differs(known: Any, state: TaskState | None) -> bool:
    """Return whether the stored row (None: not stored) differs from the present state (None: the task is deleted)."""
    if known is None:
        return True
    if state is None:
        return not known.is_deleted
    return bool(known.is_deleted or known.digest != _digest(state))


def replace_task(
    connection: Connection,
    project_id: int,
    task_id: int,
    revision: int,
    state: TaskState | None,
    *,
    exists: bool,
) -> None:
    """Write the task and those of its annotations that have changed; `state` None marks it as deleted."""
    here = (TaskRow.project_id == project_id, TaskRow.id == task_id)
    # A deleted task gets a row even if it was never stored: a slower reader with an old state must find it.
    values = _task_values(state or TaskState(project_id, task_id, "", ""), revision) | {"is_deleted": state is None}
    if exists:
        connection.execute(update(TaskRow).where(*here).values(values))
    else:
        connection.execute(insert(TaskRow).values(project_id=project_id, id=task_id, **values))
    connection.execute(delete(ProblemRow).where(ProblemRow.project_id == project_id, ProblemRow.task_id == task_id))
    kept = {
        row.id: row
        for row in connection.execute(
            select(AnnotationRow).where(AnnotationRow.project_id == project_id, AnnotationRow.task_id == task_id)
        )
    }
    annotations = {each.annotation_id: each for each in state.annotations} if state is not None else {}
    for annotation_id, row in kept.items():
        if annotation_id not in annotations and not row.is_deleted:
            _remove_regions(connection, project_id, task_id, annotation_id)
            connection.execute(
                update(AnnotationRow)
                .where(_annotation_is(project_id, task_id, annotation_id))
                .values(is_deleted=True, revision=revision, digest="")
            )
    if state is None:
        return
    for annotation_id, annotation in annotations.items():
        before = kept.get(annotation_id)
        if before is None or _is_outdated(before, annotation, state.config_hash):
            _store_annotation(connection, state, annotation, revision, is_new=before is None)
    if state.problems:
        connection.execute(insert(ProblemRow), _problem_values(state))


def _digest(state: TaskState) -> str:
    """Return a hash of everything stored of a task, except the stamp, which may change without its content."""
    parts = [
        [state.image_url, state.image_name, state.image_sha256, state.arm],
        [[each.annotation_id, each.digest, _reader(state, each)] for each in state.annotations],
        [asdict(problem) for problem in state.problems],
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _reader(state: TaskState, annotation: AnnotationState) -> str | None:
    """Return the config that an incomplete annotation was read with: another config may read more of it."""
    return None if annotation.is_complete else state.config_hash


def _is_outdated(before: Any, annotation: AnnotationState, config_hash: str) -> bool:
    """Return whether an annotation must be written again: it changed, or another config may read more of it."""
    may_read_more = not before.is_complete and before.config_hash != config_hash
    return bool(before.is_deleted or before.digest != annotation.digest or may_read_more)


def _task_values(state: TaskState, revision: int) -> dict[str, Any]:
    return {
        "stamp": state.stamp,
        "image_url": state.image_url,
        "image_name": state.image_name,
        "image_sha256": state.image_sha256,
        "arm": state.arm,
        "digest": _digest(state),
        "revision": revision,
        "stored_at": _now(),
    }


def _store_annotation(
    connection: Connection, state: TaskState, annotation: AnnotationState, revision: int, *, is_new: bool
) -> None:
    keys = {"project_id": state.project_id, "task_id": state.task_id}
    values = {
        "annotator": annotation.annotator,
        "created_at": annotation.created_at,
        "updated_at": annotation.updated_at,
        "lead_time_s": annotation.lead_time_s,
        "is_skipped": annotation.is_skipped,
        "is_deleted": False,
        "config_hash": state.config_hash,
        "is_complete": annotation.is_complete,
        "digest": annotation.digest,
        "revision": revision,
    }
    if is_new:
        connection.execute(insert(AnnotationRow).values(id=annotation.annotation_id, **keys, **values))
    else:
        _remove_regions(connection, state.project_id, state.task_id, annotation.annotation_id)
        where = _annotation_is(state.project_id, state.task_id, annotation.annotation_id)
        connection.execute(update(AnnotationRow).where(where).values(values))
    regions, pairs = [], []
    for position, region in enumerate(annotation.regions):
        own = {**keys, "annotation_id": annotation.annotation_id, "position": position}
        regions.append(
            {
                **own,
                "region_id": plain_text(region.region),
                "origin": plain_text(region.origin),
                "model_version": None if region.model_version is None else plain_text(region.model_version),
                "is_blind": region.region in annotation.blind,
                "is_corrected": bool(region.changed),
                "body": region.to_json(),
            }
        )
        pairs += [{**own, **pair} for pair in _pairs(region)]
    if regions:
        connection.execute(insert(RegionRow), regions)
    if pairs:
        connection.execute(insert(PairRow), pairs)


def _pairs(region: SubmittedRegion) -> list[dict[str, Any]]:
    predicted = region.suggestion or {}
    return [
        {
            "field": plain_text(name),
            "predicted": predicted.get(name),
            "final": region.texts.get(name, []),
            "is_changed": None if region.suggestion is None else name in region.changed,
            "confidence": region.confidence.get(name),
        }
        for name in sorted({*region.texts, *predicted})
    ]


def _remove_regions(connection: Connection, project_id: int, task_id: int, annotation_id: int) -> None:
    for table in (PairRow, RegionRow):
        connection.execute(
            delete(table).where(
                table.project_id == project_id, table.task_id == task_id, table.annotation_id == annotation_id
            )
        )


def _problem_values(state: TaskState) -> Sequence[dict[str, Any]]:
    return [
        {
            "project_id": state.project_id,
            "task_id": state.task_id,
            "position": position,
            "annotation_id": problem.annotation,
            "region_id": problem.region,
            "problem": problem.problem,
            "kind": problem.kind,
        }
        for position, problem in enumerate(state.problems)
    ]


def _annotation_is(project_id: int, task_id: int, annotation_id: int) -> Any:
    return (
        (AnnotationRow.project_id == project_id)
        & (AnnotationRow.task_id == task_id)
        & (AnnotationRow.id == annotation_id)
    )


def plain_text(text: str) -> str:
    """Replace NUL characters and lone surrogates, which not every database accepts in a text column."""
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode("utf-8")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
