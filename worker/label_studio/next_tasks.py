"""The tasks that an annotator opens next, so that their images can be embedded before they are opened."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from job_queue.contracts import ImageRef, LookAheadJob
from worker.label_studio import error_texts
from worker.label_studio.api import LabelStudioApi
from worker.label_studio.task_filters import all_of, condition

MOST_TASKS = 20  # per opened task, even if the backend asks for more
_MAX_BYTES = 16 * 1024**2


def next_images(api: LabelStudioApi, job: LookAheadJob) -> list[ImageRef]:
    """Return the images of the tasks after `job.task_id` that have no annotation yet, in the order of labeling.

    Raises:
        LabelStudioRefused: Label Studio refuses the token.
        LabelStudioFailed: no answer, or an answer that lists no tasks.
    """
    untouched = condition("total_annotations", "equal", "Number", 0)
    view = all_of(condition("id", "greater", "Number", job.task_id), untouched) | {"ordering": ["tasks:id"]}
    query = {
        "project": job.project_id,
        "page": 1,
        "page_size": min(job.count, MOST_TASKS),
        "fields": "task_only",
        "query": json.dumps(view),
    }
    answer = api.call("GET", "/api/tasks", params=query, max_bytes=_MAX_BYTES)
    try:
        images = [_image(task, job) for task in answer["tasks"][: job.count]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise error_texts.unexpected(api.address.absolute("/api/tasks"), "a list of tasks", answer) from error
    return [image for image in images if image is not None]


def _image(task: Mapping[str, Any], job: LookAheadJob) -> ImageRef | None:
    url = task["data"].get(job.image_key)
    return ImageRef(url, int(task["id"]), job.project_id) if isinstance(url, str) and url else None
