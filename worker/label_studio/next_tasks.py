"""Which tasks an annotator opens next, asked of Label Studio: their images are warmed before anyone waits for them.

Called by `worker/jobs.py` for a `LookAheadJob`, which the backend submits when a task is opened.
"""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Mapping
from typing import Any

import httpcore

from job_queue.contracts import ImageRef, LookAheadJob
from job_queue.errors import OspreyError
from worker.guarded_http import AddressRefusedError, ResponseTooLargeError
from worker.label_studio.credentials import LabelStudio

MOST_TASKS = 20  # per opened task, whatever the backend asks for
_MAX_BYTES = 16 * 1024**2


class TasksUnavailable(OspreyError):
    """Label Studio does not list the project's tasks; the message says why."""


def next_images(label_studio: LabelStudio, job: LookAheadJob) -> list[ImageRef]:
    """The images of the tasks after `job.task_id` that nobody has annotated yet, in the order of labeling.

    Raises:
        TasksUnavailable: no answer, or none that lists tasks.
        ImageUnavailable: Label Studio refuses the token.
    """
    later = {"filter": "filter:tasks:id", "operator": "greater", "type": "Number", "value": job.task_id}
    untouched = {"filter": "filter:tasks:total_annotations", "operator": "equal", "type": "Number", "value": 0}
    view = {"filters": {"conjunction": "and", "items": [later, untouched]}, "ordering": ["tasks:id"]}
    query = {
        "project": job.project_id,
        "page": 1,
        "page_size": min(job.count, MOST_TASKS),
        "fields": "task_only",
        "query": json.dumps(view),
    }
    path = f"/api/tasks?{urllib.parse.urlencode(query)}"
    try:
        response = label_studio.get(path, max_bytes=_MAX_BYTES)
    except (
        httpcore.TimeoutException,
        httpcore.NetworkError,
        httpcore.ProtocolError,
        AddressRefusedError,
        ResponseTooLargeError,
    ) as error:
        raise TasksUnavailable(f"Label Studio does not list tasks ({type(error).__name__}: {error})") from error
    if response.status != 200:
        raise TasksUnavailable(
            f"Label Studio answers {response.status} when asked for project {job.project_id}'s tasks"
        )
    try:
        tasks = json.loads(response.body)["tasks"]
        images = [_image(task, job) for task in tasks[: job.count]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TasksUnavailable(f"Label Studio's list of tasks is not understood: {error!r}") from error
    return [image for image in images if image is not None]


def _image(task: Mapping[str, Any], job: LookAheadJob) -> ImageRef | None:
    url = task["data"].get(job.image_key)
    return ImageRef(url, int(task["id"]), job.project_id) if isinstance(url, str) and url else None
