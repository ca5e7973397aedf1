"""The connection of a Label Studio project to the backend: interactive predictions and one webhook."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Any

from worker.label_studio.api import LabelStudioApi

BACKEND_TITLE = "osprey"
WEBHOOK_ACTIONS = (
    "ANNOTATION_CREATED",
    "ANNOTATIONS_CREATED",
    "ANNOTATION_UPDATED",
    "ANNOTATIONS_DELETED",
    "TASKS_DELETED",
)


@dataclass(frozen=True)
class BackendAddress:
    """Where Label Studio reaches the backend, and the credentials that it sends there."""

    url: str
    user: str
    password: str = field(repr=False)
    webhook_secret: str = field(repr=False)


def connect(api: LabelStudioApi, project_id: int, backend: BackendAddress) -> None:
    """Connect a project to the backend. A second call corrects what differs.

    Raises:
        LabelStudioRefused: Label Studio refuses the token.
        LabelStudioFailed: Label Studio does not answer, or does not reach the backend at this address.
    """
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


def _ensure_webhook(api: LabelStudioApi, project_id: int, backend: BackendAddress) -> None:
    """Keep exactly one webhook to the backend.

    When a backend is added, Label Studio also makes a webhook, for every action and without credentials. Each webhook
    can cost the annotator a second at submit, so that webhook is corrected and none is added.
    """
    hooks = api.call("GET", "/api/webhooks/", params={"project": project_id})
    ours = [hook for hook in hooks if hook["url"].endswith("/webhook")]
    for surplus in ours[1:]:
        api.call("DELETE", f"/api/webhooks/{surplus['id']}/")
    record = _webhook(project_id, backend)
    if ours:
        api.call("PATCH", f"/api/webhooks/{ours[0]['id']}/", json=record)
    else:
        api.call("POST", "/api/webhooks/", params={"project": project_id}, json=record)


def _webhook(project_id: int, backend: BackendAddress) -> dict[str, Any]:
    credentials = base64.b64encode(f"{backend.user}:{backend.password}".encode()).decode()
    return {
        "url": f"{backend.url}/webhook",
        "project": project_id,
        "is_active": True,
        "send_payload": True,
        "send_for_all_actions": False,
        "actions": list(WEBHOOK_ACTIONS),
        "headers": {"Authorization": f"Basic {credentials}", "X-Webhook-Secret": backend.webhook_secret},
    }
