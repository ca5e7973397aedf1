"""Webhooks: a hint that something changed, kept for later work. Label Studio waits at most 1 s and never retries.

The request is read, a few ids are stored, the answer leaves. What really changed is pulled from Label Studio's API
by whoever reads the hints: the bodies hold project secrets and are neither stored nor logged.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from backend.predict import ClickService
from backend.session import SessionStore
from worker.errors import QueueUnavailable

logger = logging.getLogger(__name__)

HINTS_KEY = "osprey:webhook-hints"
_HINTS_KEPT = 10_000


class WebhookError(ValueError):
    """The body is not a webhook of Label Studio; the message says what is missing."""


class WebhookInbox:
    """Takes webhooks in. Safe to share between threads."""

    def __init__(self, redis: Redis, sessions: SessionStore, clicks: ClickService) -> None:
        self._redis = redis
        self._sessions = sessions
        self._clicks = clicks

    def take(self, body: Mapping[str, Any]) -> str:
        """Store the hint and act on what concerns open pages; returns the action.

        Raises:
            WebhookError: no action in the body.
            QueueUnavailable: Redis does not answer; the hint is lost, and the next reconcile finds the change.
        """
        action = body.get("action")
        if not isinstance(action, str) or not action:
            raise WebhookError("expected a webhook body with an action, such as ANNOTATION_CREATED")
        hint: dict[Any, Any] = {
            "action": action,
            "project": _id(body.get("project")),
            "task": _id(body.get("task")),
            "annotations": ",".join(_ids(body)),
            "updated_at": str(_mapping(body.get("annotation")).get("updated_at") or ""),
        }
        try:
            self._redis.xadd(HINTS_KEY, hint, maxlen=_HINTS_KEPT, approximate=True)
        except RedisError as error:
            raise QueueUnavailable(f"the webhook {action} is not kept: {type(error).__name__}: {error}") from error
        logger.info("webhook %s", " ".join(f"{name}={value}" for name, value in hint.items() if value))
        self._act(action, body)
        return action

    def _act(self, action: str, body: Mapping[str, Any]) -> None:
        tasks = body.get("tasks")
        listed = [task for task in tasks if isinstance(task, Mapping)] if isinstance(tasks, list) else []
        if action == "TASKS_DELETED":
            for task in listed:
                self._sessions.forget(_id(task))
        elif action == "TASKS_CREATED":
            xml = _mapping(body.get("project")).get("label_config")
            if isinstance(xml, str):
                self._clicks.open_tasks(listed, xml)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _id(value: Any) -> str:
    """The id of an object, or of an id that stands for it; "" without one."""
    found = value.get("id") if isinstance(value, Mapping) else value
    return str(found) if isinstance(found, (int, str)) else ""


def _ids(body: Mapping[str, Any]) -> list[str]:
    several = body.get("annotations")
    return [
        found
        for entry in [body.get("annotation"), *(several if isinstance(several, list) else [])]
        if (found := _id(entry))
    ]
