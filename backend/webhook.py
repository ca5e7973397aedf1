"""Webhooks: each one becomes a `data` job that looks for changes. Label Studio waits at most 1 s and never retries.

Only ids are enqueued. The job asks Label Studio's API what has changed, because the bodies of webhooks hold project
secrets: they are neither stored nor logged.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from backend.click.session import SessionStore
from backend.ports import HintQueue
from backend.predict import ClickService
from job_queue.contracts import CollectJob, FineTuneJob, ReconcileJob

logger = logging.getLogger(__name__)

_COLLECTED = {"ANNOTATION_CREATED", "ANNOTATIONS_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_DELETED", "TASKS_DELETED"}
_IDS_PER_HINT = 200  # for more, looking at the whole project is less work


class WebhookError(ValueError):
    """The body is not a webhook of Label Studio; the message names what is missing."""


class WebhookInbox:
    """Accepts webhooks. Safe to share between threads."""

    def __init__(self, queue: HintQueue, sessions: SessionStore, clicks: ClickService) -> None:
        self._queue = queue
        self._sessions = sessions
        self._clicks = clicks

    def take(self, body: Mapping[str, Any]) -> str:
        """Enqueue the job and update what concerns open pages; return the action.

        Raises:
            WebhookError: no action in the body.
            QueueUnavailable, QueueBusy: the job is lost, and the next reconcile finds the change.
        """
        action = body.get("action")
        if not isinstance(action, str) or not action:
            raise WebhookError("expected a webhook body with an action, such as ANNOTATION_CREATED")
        job = hint_of(action, body)
        if job is not None:
            job_id = self._queue.submit(job)
            logger.info("webhook %s project=%s job_id=%s", action, job.project_id, job_id)
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


def hint_of(action: str, body: Mapping[str, Any]) -> CollectJob | ReconcileJob | FineTuneJob | None:
    """Return the job for a webhook; None where no annotation can have changed, or the body names none.

    Label Studio's button "Start training" is a webhook, too: it becomes a fine-tune. A webhook that is sent again
    gives the same job.
    """
    project_id = _number(body.get("project"))
    if action == "START_TRAINING" and project_id is not None:
        return FineTuneJob(project_id, "Start training in Label Studio")
    if action not in _COLLECTED or project_id is None:
        return None
    annotations = [each for each in (body.get("annotation"), *_list(body.get("annotations"))) if each is not None]
    tasks = [body.get("task"), *_list(body.get("tasks")), *(_mapping(each).get("task") for each in annotations)]
    task_ids = _numbers(tasks)
    annotation_ids = _numbers(annotations)
    if max(len(task_ids), len(annotation_ids)) > _IDS_PER_HINT:
        return ReconcileJob(project_id, full=True)
    if not task_ids and not annotation_ids:
        return None
    updated = [str(_mapping(each).get("updated_at") or "") for each in annotations]
    return CollectJob(project_id, task_ids, annotation_ids, max(updated, default=""), action)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _numbers(values: list[Any]) -> tuple[int, ...]:
    return tuple(sorted({found for value in values if (found := _number(value)) is not None}))


def _number(value: Any) -> int | None:
    """Return the numeric id of an object that is given whole or as its id; None without one."""
    found = value.get("id") if isinstance(value, Mapping) else value
    return found if isinstance(found, int) and not isinstance(found, bool) and found > 0 else None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _id(value: Any) -> str:
    """Return the id of an object that is given whole or as its id; "" without one."""
    found = value.get("id") if isinstance(value, Mapping) else value
    return str(found) if isinstance(found, (int, str)) else ""
