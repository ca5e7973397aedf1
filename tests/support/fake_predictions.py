"""A fake Label Studio with one project: its tasks and predictions behave as in release 1.23.2."""

from __future__ import annotations

import base64
import io
import itertools
import json
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

from PIL import Image

from tests.support.fake_label_studio import FakeLabelStudio, Reply, _send


def data_url(shade: int) -> str:
    """Return the data URL of an image in one shade of red."""
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48), (shade, 0, 0)).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def task(task_id: int, url: str | None = None) -> dict[str, Any]:
    """Return a task of project 1."""
    return {"id": task_id, "project": 1, "data": {"image": url or data_url(task_id)}}


class FakePredictions(FakeLabelStudio):
    """Tasks and predictions. A `refused` task makes a whole import fail with 400; `invalid` ones are skipped."""

    def __init__(self, label_config: str, tasks: list[dict[str, Any]]) -> None:
        self.label_config = label_config
        self.tasks = tasks
        self.predictions: list[dict[str, Any]] = []
        self.imports: list[list[int]] = []  # the task ids of each accepted import
        self.refused: set[int] = set()
        self.invalid: set[int] = set()
        self.is_down = False
        self._ids = itertools.count(1)
        super().__init__()
        self.legacy_token = "legacy"

    def answer_get(self, request: BaseHTTPRequestHandler) -> None:
        address = urlsplit(request.path)
        query = {name: values[0] for name, values in parse_qs(address.query).items()}
        if self.is_down:
            _json(request, {"detail": "down"}, 503)
        elif request.headers.get("Authorization") != f"Token {self.legacy_token}":
            _json(request, {"detail": "no"}, 401)
        elif address.path == "/api/projects/1":
            _json(request, {"id": 1, "label_config": self.label_config})
        elif address.path == "/api/tasks" and query["project"] == "1":
            self._list(request, query)
        elif address.path == "/api/predictions":
            _json(request, [one for one in self.predictions if one["task"] == int(query["task"])])
        else:
            super().answer_get(request)

    def _list(self, request: BaseHTTPRequestHandler, query: dict[str, str]) -> None:
        asked = json.loads(query["query"])
        tasks = list(self.tasks)
        if "selectedItems" in asked:
            tasks = [task for task in tasks if task["id"] in asked["selectedItems"]["included"]]
        for item in asked.get("filters", {}).get("items", []):
            tasks = [task for task in tasks if any(part in self._versions(task) for part in item["value"])]
        page, size = int(query["page"]), int(query["page_size"])
        shown = [task | {"predictions_model_versions": self._versions(task)} for task in tasks]
        columns = query["include"].split(",")
        rows = [{name: task[name] for name in columns} for task in shown[(page - 1) * size : page * size]]
        _json(request, {"total": len(tasks), "tasks": rows})

    def _versions(self, task: dict[str, Any]) -> str:
        return ",".join(one["model_version"] for one in self.predictions if one["task"] == task["id"])

    def answer_post(self, request: BaseHTTPRequestHandler) -> None:
        body = json.loads(request.rfile.read(int(request.headers["Content-Length"])))
        assert request.path == "/api/projects/1/import/predictions", request.path
        ids = [one["task"] for one in body]
        if self.is_down:
            _json(request, {"detail": "down"}, 503)
            return
        if self.refused & set(ids):
            _json(request, {"detail": "Validation error"}, 400)
            return
        kept = [one | {"id": next(self._ids)} for one in body if one["task"] not in self.invalid]
        self.predictions += kept
        self.imports.append(ids)
        _json(request, {"created": len(kept)}, 201)

    def answer_delete(self, request: BaseHTTPRequestHandler) -> None:
        prediction_id = int(request.path.rsplit("/", 1)[1])
        self.predictions = [one for one in self.predictions if one["id"] != prediction_id]
        _send(request, Reply(204))


def _json(request: BaseHTTPRequestHandler, answer: Any, status: int = 200) -> None:
    _send(request, Reply(status, json.dumps(answer).encode()))
