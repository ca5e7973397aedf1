"""Claims about connecting a project to the backend."""

from __future__ import annotations

import base64
import json

import httpx
import pytest

from worker.label_studio.api import LabelStudioApi
from worker.label_studio.connection import WEBHOOK_ACTIONS, BackendAddress, connect

BACKEND = BackendAddress("http://backend:9090", "osprey", "pass:word", "hook-secret")


class Project:
    """A Label Studio with one project's backends and webhooks. Adding a backend adds a webhook, as in 1.23.2."""

    def __init__(self) -> None:
        self.records: dict[str, dict[int, dict]] = {"ml": {}, "webhooks": {}}
        self.calls: list[str] = []
        self.api = LabelStudioApi("http://studio", "legacy", transport=httpx.MockTransport(self.answer))

    def answer(self, request: httpx.Request) -> httpx.Response:
        _, _, kind, *rest = request.url.path.rstrip("/").split("/")
        records, body = self.records[kind], json.loads(request.read() or b"null")
        if request.method == "GET":
            assert request.url.params["project"] == "7"
            return httpx.Response(200, json=[{"id": number, **each} for number, each in records.items()])
        self.calls.append(f"{request.method} {kind}")
        if request.method == "DELETE":
            del records[int(rest[0])]
            return httpx.Response(204)
        number = int(rest[0]) if rest else len(records) + 1
        records[number] = {**records.get(number, {}), **body}
        if kind == "ml" and request.method == "POST":
            hook = {"url": body["url"] + "/webhook", "send_for_all_actions": True}
            self.records["webhooks"][len(self.records["webhooks"]) + 1] = hook
        return httpx.Response(200, json={"id": number})


@pytest.fixture
def project():
    project = Project()
    yield project
    project.api.close()


def test_new_project_gets_one_backend_and_one_webhook_with_credentials(project):
    """The webhook that Label Studio makes with the backend is corrected, and no second one is added."""
    connect(project.api, 7, BACKEND)
    assert project.calls == ["POST ml", "PATCH webhooks"]
    (backend,), (hook,) = (list(records.values()) for records in project.records.values())
    assert (backend["url"], backend["is_interactive"], backend["basic_auth_pass"]) == (BACKEND.url, True, "pass:word")
    assert hook["url"] == "http://backend:9090/webhook"
    assert (hook["actions"], hook["send_for_all_actions"]) == (list(WEBHOOK_ACTIONS), False)
    assert base64.b64decode(hook["headers"]["Authorization"].removeprefix("Basic ")) == b"osprey:pass:word"
    assert hook["headers"]["X-Webhook-Secret"] == "hook-secret"


def test_second_call_corrects_what_differs(project):
    """A backend at another address and surplus webhooks end as one backend and one webhook."""
    connect(project.api, 7, BACKEND)
    project.records["webhooks"][5] = {"url": "http://old:9090/webhook"}
    connect(project.api, 7, BackendAddress("http://moved:9091", "osprey", "new", "hook-secret"))
    assert [each["url"] for each in project.records["ml"].values()] == ["http://moved:9091"]
    assert [each["url"] for each in project.records["webhooks"].values()] == ["http://moved:9091/webhook"]


def test_project_without_a_webhook_gets_one(project):
    """A webhook that was deleted is made again."""
    connect(project.api, 7, BACKEND)
    project.records["webhooks"].clear()
    connect(project.api, 7, BACKEND)
    assert project.calls[-1] == "POST webhooks"
    assert len(project.records["webhooks"]) == 1


def test_secrets_are_not_shown():
    """The address can be logged."""
    assert "pass:word" not in repr(BACKEND)
    assert "hook-secret" not in repr(BACKEND)
