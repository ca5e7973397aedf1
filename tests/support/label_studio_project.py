"""A fake Label Studio with projects, tasks and annotations in memory: its API for the collector, and its webhooks.

Times are those of Label Studio's clock: every change of a task is later than the one before.
"""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.support.fake_label_studio import FakeLabelStudio, Reply, _send
from tests.support.submitted import CONFIG

TOKEN = "ab" * 20


class LabelStudioProject(FakeLabelStudio):
    """A server of projects and tasks; `down` makes every request fail."""

    def __init__(self) -> None:
        super().__init__()
        self.legacy_token = TOKEN
        self.projects: dict[int, dict[str, Any]] = {}
        self.tasks: dict[int, dict[str, Any]] = {}
        self.down = False
        self.before_task = lambda task_id: None
        self._now = datetime(2026, 11, 20, 12, tzinfo=UTC)
        self._next_annotation = 1
        self.add_project(3)

    def add_project(self, project_id: int, config: str = CONFIG) -> None:
        self.projects[project_id] = {"id": project_id, "title": f"project {project_id}", "label_config": config}

    def add_task(self, task_id: int, *, project: int = 3, url: str | None = None) -> None:
        data = {"image": url or f"/data/upload/{project}/{task_id}.png"}
        self.tasks[task_id] = {"id": task_id, "project": project, "data": data, "annotations": []}
        self._touch(task_id)

    def annotate(self, task_id: int, result: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        """Submit an annotation and return the webhook's body."""
        annotation = {
            "id": self._next_annotation,
            "task": task_id,
            "completed_by": {"id": 5, "email": "someone@example.com"},
            "was_cancelled": False,
            "lead_time": 6.9,
            "created_at": self._tick(),
            "updated_at": self._tick(),
            "result": result,
            **more,
        }
        self._next_annotation += 1
        self.tasks[task_id]["annotations"].append(annotation)
        return self._hook("ANNOTATION_CREATED", task_id, annotation)

    def update(self, task_id: int, annotation_id: int, result: list[dict[str, Any]]) -> dict[str, Any]:
        """Edit an annotation and return the webhook's body."""
        annotation = next(a for a in self.tasks[task_id]["annotations"] if a["id"] == annotation_id)
        annotation.update(result=result, updated_at=self._tick())
        return self._hook("ANNOTATION_UPDATED", task_id, annotation)

    def delete(self, task_id: int, annotation_id: int) -> dict[str, Any]:
        """Delete an annotation and return the webhook's body, which names no task."""
        task = self.tasks[task_id]
        task["annotations"] = [each for each in task["annotations"] if each["id"] != annotation_id]
        self._touch(task_id)
        project = {"id": task["project"], "token": "secret"}
        return {"action": "ANNOTATIONS_DELETED", "annotations": [{"id": annotation_id}], "project": project}

    def delete_task(self, task_id: int) -> dict[str, Any]:
        """Delete a task and return the webhook's body."""
        project = {"id": self.tasks.pop(task_id)["project"]}
        return {"action": "TASKS_DELETED", "tasks": [{"id": task_id}], "project": project}

    def answer_get(self, request: BaseHTTPRequestHandler) -> None:
        authorization = request.headers.get("Authorization")
        self.seen.append((request.path, authorization))
        parts = urlsplit(request.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if parts.path in self.replies:
            _send(request, self.replies[parts.path])
        elif self.down:
            _send(request, Reply(503, b"down"))
        elif authorization != f"Token {TOKEN}":
            _send(request, Reply(401, b"no"))
        else:
            found = self._found(parts.path.strip("/").split("/"), query)
            status = 404 if found is None else 200
            _send(request, Reply(status, json.dumps(found if found is not None else {"detail": "Not found."}).encode()))

    def _found(self, path: list[str], query: dict[str, str]) -> Any:
        match path:
            case ["api", "projects"]:
                return {"count": len(self.projects), "results": list(self.projects.values())}
            case ["api", "projects", number]:
                return self.projects.get(int(number))
            case ["api", "tasks"]:
                return self._page(query)
            case ["api", "tasks", number]:
                answer = json.loads(json.dumps(self.tasks.get(int(number))))
                self.before_task(int(number))
                return answer
        return None

    def _page(self, query: dict[str, str]) -> Any:
        since = ""
        if "query" in query:
            (item,) = json.loads(query["query"])["filters"]["items"]
            assert (item["filter"], item["operator"]) == ("filter:tasks:updated_at", "greater")
            since = item["value"]
        tasks = [t for t in self.tasks.values() if t["project"] == int(query["project"]) and t["updated_at"] > since]
        size, page = int(query["page_size"]), int(query["page"])
        shown = tasks[size * (page - 1) : size * page]
        if query.get("include"):
            shown = [
                {
                    "id": task["id"],
                    "updated_at": task["updated_at"],
                    "annotations_ids": ",".join(str(each["id"]) for each in reversed(task["annotations"])),
                }
                for task in shown
            ]
        return {"total": len(tasks), "tasks": shown}

    def _hook(self, action: str, task_id: int, annotation: dict[str, Any]) -> dict[str, Any]:
        self._touch(task_id)
        task = self.tasks[task_id]
        shown = {"id": task_id, "data": task["data"]}
        body = {"action": action, "annotation": annotation, "project": {"id": task["project"], "token": "secret"}}
        return json.loads(json.dumps({**body, "task": shown}))

    def _touch(self, task_id: int) -> None:
        self.tasks[task_id]["updated_at"] = self._tick()

    def _tick(self) -> str:
        self._now += timedelta(seconds=1)
        return self._now.isoformat().replace("+00:00", ".000001Z")


def wait_for(claim: Any, timeout_s: float = 15.0) -> None:
    """Wait until `claim()` is true."""
    deadline = time.monotonic() + timeout_s
    while not claim():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.05)
