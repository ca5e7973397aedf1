"""The sample project: drawn scenes, our labeling config, the ML connection and its webhook.

`ensure_project` may run any number of times: it makes what is missing, corrects what differs and
leaves people's work alone. Used by `make up` and by the one-shot init service of docker-compose.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from label_config.ready_configs import BITMASK
from stack.label_studio_api import LabelStudioApi

TITLE = "Osprey sample: drawn scenes"
BACKEND_TITLE = "osprey"
WEBHOOK_ACTIONS = [
    "ANNOTATION_CREATED",
    "ANNOTATIONS_CREATED",
    "ANNOTATION_UPDATED",
    "ANNOTATIONS_DELETED",
    "TASKS_DELETED",
]


@dataclass(frozen=True)
class BackendAddress:
    """Where Label Studio reaches the backend and what it says to be let in."""

    url: str
    user: str
    password: str
    webhook_secret: str


def ensure_project(api: LabelStudioApi, backend: BackendAddress, progress: Callable[[str], None]) -> int:
    """The sample project's id, with its tasks and connections in place.

    Raises:
        StackError: Label Studio refuses something.
    """
    progress("project")
    project_id = _ensure_named_project(api)
    _ensure_tasks(api, project_id, progress)
    progress("connection to the backend")
    connect(api, project_id, backend)
    return project_id


def connect(api: LabelStudioApi, project_id: int, backend: BackendAddress) -> None:
    """Connect a project to the backend: interactive predictions and one webhook that carries its credentials."""
    record = {
        "url": backend.url,
        "project": project_id,
        "title": BACKEND_TITLE,
        "is_interactive": True,
        "auth_method": "BASIC_AUTH",
        "basic_auth_user": backend.user,
        "basic_auth_pass": backend.password,
    }
    connections = api.call("GET", "/api/ml", params={"project": project_id})
    known = [each for each in connections if each["title"] == BACKEND_TITLE]
    if known:
        api.call("PATCH", f"/api/ml/{known[0]['id']}", json=record)
    else:
        api.call("POST", "/api/ml", json=record)
    _ensure_webhook(api, project_id, backend)


def _ensure_named_project(api: LabelStudioApi) -> int:
    projects = api.call("GET", "/api/projects", params={"page_size": 1000})["results"]
    for project in projects:
        if project["title"] == TITLE:
            return int(project["id"])
    made = api.call(
        "POST",
        "/api/projects",
        json={
            "title": TITLE,
            "description": "Click an object: its mask appears with its fields filled in.",
            "label_config": BITMASK.read_text(encoding="utf-8"),
            "reveal_preannotations_interactively": True,
            "show_collab_predictions": False,
        },
    )
    return int(made["id"])


def _ensure_tasks(api: LabelStudioApi, project_id: int, progress: Callable[[str], None]) -> None:
    from demo.scenes import DEMO_SEEDS, make_scene

    answer = api.call("GET", "/api/tasks", params={"project": project_id, "page_size": 1000, "fields": "task_only"})
    present = [str(task["data"].get("image", "")) for task in answer["tasks"]]
    for number, seed in enumerate(DEMO_SEEDS, start=1):
        name = f"scene-{seed}.png"
        if any(url.endswith(name) for url in present):
            continue
        progress(f"scene {number} of {len(DEMO_SEEDS)}")
        picture = io.BytesIO()
        make_scene(seed).image.save(picture, "PNG")
        api.call("POST", f"/api/projects/{project_id}/import", files={"file": (name, picture.getvalue(), "image/png")})


def _ensure_webhook(api: LabelStudioApi, project_id: int, backend: BackendAddress) -> None:
    """Keep exactly one webhook to us.

    Label Studio makes one together with the ML connection, for every action and without the credentials;
    each webhook may cost the annotator a second at submit. So that one is corrected instead of adding ours.
    """
    credentials = base64.b64encode(f"{backend.user}:{backend.password}".encode()).decode()
    record: dict[str, Any] = {
        "url": f"{backend.url}/webhook",
        "project": project_id,
        "is_active": True,
        "send_payload": True,
        "send_for_all_actions": False,
        "actions": WEBHOOK_ACTIONS,
        "headers": {"Authorization": f"Basic {credentials}", "X-Webhook-Secret": backend.webhook_secret},
    }
    hooks = api.call("GET", "/api/webhooks/", params={"project": project_id})
    ours = [hook for hook in hooks if hook["url"].endswith("/webhook")]
    for surplus in ours[1:]:
        api.call("DELETE", f"/api/webhooks/{surplus['id']}/")
    if ours:
        api.call("PATCH", f"/api/webhooks/{ours[0]['id']}/", json=record)
    else:
        api.call("POST", "/api/webhooks/", params={"project": project_id}, json=record)
