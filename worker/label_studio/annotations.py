"""A project's tasks with their annotations, through Label Studio's API: the source of truth for export.

Next on the path: `learning/submitted/submissions.py` (tasks -> regions).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from job_queue.errors import OspreyError
from worker.guarded_http import AllowedHosts, GuardedHttp
from worker.label_studio.credentials import LabelStudio, origin_of
from worker.settings import Settings

# One page of tasks is one answer in memory; a task with 24 brush regions is about 1 MB.
_PAGE_SIZE = 20
_STAMPS_PAGE_SIZE = 1000
_READINGS = 5
_TIMEOUT_S = 100.0


class AnnotationsUnavailable(OspreyError):
    """Label Studio does not give the project's annotations; the message says why and what to check.

    `status` is the answer's HTTP status, None where there was none.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class TaskStamp:
    """One line of the list of tasks: enough to see that a task has changed since it was read."""

    task_id: int
    updated_at: str
    annotation_ids: tuple[int, ...]

    @property
    def text(self) -> str:
        """Differs when the task, or which annotations it has, does."""
        return f"{self.updated_at} {','.join(map(str, self.annotation_ids))}"


def stamp_of(task: Mapping[str, Any]) -> TaskStamp:
    """The same of a whole task."""
    annotations = [each for each in task.get("annotations") or () if isinstance(each, Mapping)]
    ids = sorted(each["id"] for each in annotations if isinstance(each.get("id"), int))
    return TaskStamp(int(task["id"]), str(task.get("updated_at")), tuple(ids))


def _listed(task: Any) -> TaskStamp | None:
    if not isinstance(task, Mapping) or not isinstance(task.get("id"), int):
        return None
    ids = sorted(int(part) for part in str(task.get("annotations_ids") or "").split(",") if part.strip().isdigit())
    return TaskStamp(task["id"], str(task.get("updated_at")), tuple(ids))


@contextmanager
def annotation_source(settings: Settings) -> Iterator[AnnotationSource]:
    """The source that the settings name, with its connections, closed at the end.

    Raises:
        AnnotationsUnavailable: the settings name no Label Studio.
    """
    if not settings.label_studio_url:
        raise AnnotationsUnavailable("set OSPREY_LABEL_STUDIO_URL to Label Studio's address")
    _, host, port = origin_of(settings.label_studio_url)
    guard = AllowedHosts(origins=[(host, port or 80)])
    with closing(GuardedHttp(guard, settings.image_timeout_s)) as http:
        label_studio = LabelStudio(settings.label_studio_url, settings.label_studio_token, http)
        with AnnotationSource(settings.label_studio_url, label_studio) as source:
            yield source


class AnnotationSource:
    """Reads projects of one Label Studio server. Close it after use, or use it in a `with` statement."""

    def __init__(self, base_url: str, label_studio: LabelStudio, transport: httpx.BaseTransport | None = None) -> None:
        """`label_studio` gives the authorization; `transport` replaces the network in tests."""
        self._base_url = base_url.rstrip("/")
        self._label_studio = label_studio
        # Proxies of the environment are for the outside world; Label Studio's address is given as it is reached.
        self._client = httpx.Client(timeout=_TIMEOUT_S, trust_env=False, transport=transport)

    def __enter__(self) -> AnnotationSource:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def project(self, project_id: int) -> dict[str, Any]:
        """The project, its `label_config` and `title` among the rest.

        Raises:
            AnnotationsUnavailable: no answer, no such project, or no right to see it.
        """
        project = self._get(f"/api/projects/{project_id}", {})
        if not isinstance(project, dict) or not isinstance(project.get("label_config"), str):
            raise AnnotationsUnavailable(f"{self._base_url} answers without a label config; is it a Label Studio?")
        return project

    def tasks(self, project_id: int) -> Iterator[dict[str, Any]]:
        """Every task of the project with all of its annotations, page by page.

        Raises:
            AnnotationsUnavailable: as for `project`.
        """
        page, num_seen = 1, 0
        while True:
            answer = self._get(
                "/api/tasks", {"project": project_id, "fields": "all", "page": page, "page_size": _PAGE_SIZE}
            )
            tasks = answer.get("tasks") if isinstance(answer, dict) else None
            if not isinstance(tasks, list) or not isinstance(answer.get("total"), int):
                raise AnnotationsUnavailable(f"{self._base_url}/api/tasks answers without a list of tasks")
            yield from tasks
            num_seen += len(tasks)
            # A page beyond the last one is an error in Label Studio, so the total says when to stop.
            if not tasks or num_seen >= answer["total"]:
                return
            page += 1

    def projects(self) -> Iterator[dict[str, Any]]:
        """Every project that the token's user may see, with `id`, `title` and `label_config`.

        Raises:
            AnnotationsUnavailable: as for `project`.
        """
        page, num_seen = 1, 0
        while True:
            query = {"page": page, "page_size": 100, "include": "id,title,label_config"}
            answer = self._get("/api/projects", query)
            found = answer.get("results") if isinstance(answer, dict) else None
            if not isinstance(found, list) or not isinstance(answer.get("count"), int):
                raise AnnotationsUnavailable(f"{self._base_url}/api/projects answers without a list of projects")
            yield from found
            num_seen += len(found)
            if not found or num_seen >= answer["count"]:
                return
            page += 1

    def task(self, task_id: int) -> dict[str, Any] | None:
        """A task with all of its annotations, skipped ones included; None where Label Studio has no such task.

        Raises:
            AnnotationsUnavailable: as for `project`, except for a task that is not there.
        """
        try:
            task = self._get(f"/api/tasks/{task_id}/", {})
        except AnnotationsUnavailable as error:
            if error.status == 404:
                return None
            raise
        if not isinstance(task, dict) or not isinstance(task.get("annotations"), list):
            raise AnnotationsUnavailable(f"{self._base_url}/api/tasks/{task_id}/ answers without annotations")
        return task

    def stamps(self, project_id: int, updated_after: str | None = None) -> list[TaskStamp]:
        """What the list of tasks says of each task, all pages; with `updated_after` only of those changed later.

        The list is read again until it did not get shorter meanwhile: a task that is deleted on the way moves others to
        pages that were read already.

        Raises:
            AnnotationsUnavailable: as for `project`; or tasks were deleted during each of several readings.
        """
        query: dict[str, Any] = {"project": project_id, "fields": "all", "include": "id,updated_at,annotations_ids"}
        if updated_after is not None:
            item = {"filter": "filter:tasks:updated_at", "operator": "greater", "type": "Datetime"}
            items = [{**item, "value": updated_after}]
            query["query"] = json.dumps({"filters": {"conjunction": "and", "items": items}})
        for _ in range(_READINGS):
            listed, is_complete = self._stamps_once(query)
            if is_complete:
                return listed
        raise AnnotationsUnavailable(f"project {project_id} loses tasks while its list is read; try again later")

    def _stamps_once(self, query: dict[str, Any]) -> tuple[list[TaskStamp], bool]:
        listed: dict[int, TaskStamp] = {}
        page, total = 1, 0
        while True:
            answer = self._get("/api/tasks", {**query, "page": page, "page_size": _STAMPS_PAGE_SIZE})
            tasks = answer.get("tasks") if isinstance(answer, dict) else None
            if not isinstance(tasks, list) or not isinstance(answer.get("total"), int):
                raise AnnotationsUnavailable(f"{self._base_url}/api/tasks answers without a list of tasks")
            listed |= {stamp.task_id: stamp for task in tasks if (stamp := _listed(task)) is not None}
            if answer["total"] < total:
                return [], False
            total = answer["total"]
            if not tasks or page * _STAMPS_PAGE_SIZE >= total:
                return list(listed.values()), True
            page += 1

    def _get(self, path: str, query: dict[str, Any]) -> Any:
        try:
            answer = self._once(path, query, fresh=False)
            if answer.status_code == 401:  # the access token ended between two pages
                answer = self._once(path, query, fresh=True)
        except httpx.HTTPError as error:
            raise AnnotationsUnavailable(
                f"Label Studio at {self._base_url} does not answer ({type(error).__name__}: {error}); "
                "check OSPREY_LABEL_STUDIO_URL"
            ) from error
        if answer.status_code == 401:
            raise AnnotationsUnavailable(
                "Label Studio refuses the token; put a personal access token (Account & Settings) "
                "into OSPREY_LABEL_STUDIO_TOKEN"
            )
        if answer.status_code in (403, 404):
            raise AnnotationsUnavailable(
                f"Label Studio answers {answer.status_code} to {path}; no such project, "
                "or the user of the token may not see it",
                answer.status_code,
            )
        if answer.status_code != 200:
            raise AnnotationsUnavailable(
                f"Label Studio answers {answer.status_code} to {path}: {answer.text[:200]}", answer.status_code
            )
        try:
            return answer.json()
        except ValueError as error:
            raise AnnotationsUnavailable(f"{self._base_url}{path} does not answer with JSON") from error

    def _once(self, path: str, query: dict[str, Any], *, fresh: bool) -> httpx.Response:
        headers = self._label_studio.headers(fresh=fresh)
        return self._client.get(self._base_url + path, params=query, headers=headers)
