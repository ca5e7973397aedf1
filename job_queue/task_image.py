"""Find the image of a Label Studio task with the project's labeling config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from job_queue.contracts import ImageRef
from job_queue.errors import ImageUnavailable
from label_config.reader import LabelConfig


def image_ref(task: Mapping[str, Any], config: LabelConfig) -> ImageRef:
    """Return a reference to the task's image.

    Raises:
        ImageUnavailable: the task's data contains no image under the key of the labeling config.
    """
    data, task_id, project_id = task.get("data"), task.get("id"), task.get("project")
    url = data.get(config.image_key) if isinstance(data, Mapping) else None
    if not isinstance(url, str) or not url:
        raise ImageUnavailable(f"task {task_id} has no text under {config.image_key!r} in its data; import it again")
    return ImageRef(
        url,
        task_id if isinstance(task_id, int) else None,
        project_id if isinstance(project_id, int) else None,
    )
