"""A project's tasks with their annotations: the source of truth for collecting and exporting."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from job_queue.errors import LabelStudioFailed
from worker.label_studio import error_texts
from worker.label_studio.api import LabelStudioApi
from worker.label_studio.task_filters import all_of, condition
from worker.settings import Settings

# One page of tasks is one answer in memory; a task with 24 brush regions is about 1 MB.
_PAGE_SIZE = 20
_STAMPS_PAGE_SIZE = 1000
_READINGS = 5


@dataclass(frozen=True, slots=True)
class TaskStamp:
    """One line of the list of tasks: enough to see that a task has changed since it was read."""

    task_id: int
    updated_at: str
    annotation_ids: tuple[int, ...]

    @property
    def text(self) -> str:
        """Return a text that changes when the task or the set of its annotations changes."""
        return f"{self.updated_at} {','.join(map(str, self.annotation_ids))}"


def stamp_of(task: Mapping[str, Any]) -> TaskStamp:
    """Return the stamp of a whole task."""
    annotations = [each for each in task.get("annotations") or () if isinstance(each, Mapping)]
    ids = sorted(each["id"] for each in annotations if isinstance(each.get("id"), int))
    return TaskStamp(int(task["id"]), str(task.get("updated_at")), tuple(ids))


def _stamp_of_line(task: Mapping[str, Any]) -> TaskStamp | None:
    """Return the stamp of one line of the list of tasks, None for a line without a task number."""
    if not isinstance(task.get("id"), int):
        return None
    ids = sorted(int(part) for part in str(task.get("annotations_ids") or "").split(",") if part.strip().isdigit())
    return TaskStamp(task["id"], str(task.get("updated_at")), tuple(ids))


@contextmanager
def annotation_source(settings: Settings) -> Iterator[AnnotationSource]:
    """Open a source for the Label Studio that the settings name, and close its connections at the end.

    Raises:
        LabelStudioFailed: the settings name no Label Studio.
    """
    with LabelStudioApi.from_settings(settings) as api:
        yield AnnotationSource(api)


class AnnotationSource:
    """Reads the projects of one Label Studio server.

    Every method raises `LabelStudioRefused` if Label Studio refuses the token, and `LabelStudioFailed` if it does not
    answer, has no such project or task, or does not show it to the user of the token.
    """

    def __init__(self, api: LabelStudioApi) -> None:
        self._api = api

    def project(self, project_id: int) -> dict[str, Any]:
        """Return the project with its `label_config`, `title` and other fields."""
        return self._api.project(project_id)

    def projects(self) -> Iterator[dict[str, Any]]:
        """Yield every project that the user of the token may see, with `id`, `title` and `label_config`."""
        return self._api.items("/api/projects", {"include": "id,title,label_config"})

    def tasks(self, project_id: int) -> Iterator[dict[str, Any]]:
        """Yield every task of the project with all of its annotations."""
        return self._api.items("/api/tasks", {"project": project_id, "fields": "all"}, _PAGE_SIZE)

    def task(self, task_id: int) -> dict[str, Any] | None:
        """Return a task with all of its annotations, skipped ones included; None if Label Studio has no such task."""
        path = f"/api/tasks/{task_id}/"
        try:
            task = self._api.call("GET", path)
        except LabelStudioFailed as error:
            if error.status == 404:
                return None
            raise
        if not isinstance(task, dict) or not isinstance(task.get("annotations"), list):
            raise error_texts.unexpected(self._api.address.absolute(path), "a task with annotations", task)
        return task

    def stamps(self, project_id: int, updated_after: str | None = None) -> list[TaskStamp]:
        """Return the stamp of every task of the project, or of those that changed later than `updated_after`.

        The list is read again if it got shorter meanwhile: when a task is deleted, others move to pages that were
        already read. `LabelStudioFailed` is also raised if tasks were deleted during each of several readings.
        """
        query: dict[str, Any] = {"project": project_id, "fields": "all", "include": "id,updated_at,annotations_ids"}
        if updated_after is not None:
            query["query"] = json.dumps(all_of(condition("updated_at", "greater", "Datetime", updated_after)))
        for _ in range(_READINGS):
            stamps = self._stamps_once(query)
            if stamps is not None:
                return stamps
        raise LabelStudioFailed(
            f"expected a list of the tasks of project {project_id} that stays complete, got {_READINGS} lists from "
            "which tasks were deleted while they were read; try again later"
        )

    def _stamps_once(self, query: dict[str, Any]) -> list[TaskStamp] | None:
        """Read the list once; None if it got shorter meanwhile."""
        stamps: dict[int, TaskStamp] = {}
        total_before = 0
        for tasks, total in self._api.pages("/api/tasks", query, _STAMPS_PAGE_SIZE):
            if total < total_before:
                return None
            total_before = total
            stamps |= {stamp.task_id: stamp for task in tasks if (stamp := _stamp_of_line(task)) is not None}
        return list(stamps.values())
