"""Make the sample project: drawn scenes, our labeling config, and a connection to the backend.

`make up` and the one-shot service `init` of docker compose use it.
"""

from __future__ import annotations

import io
from collections.abc import Callable

from job_queue.errors import LabelStudioFailed
from label_config.ready_configs import BITMASK
from stack.settings import StackError
from worker.label_studio.api import LabelStudioApi
from worker.label_studio.connection import BackendAddress, connect

TITLE = "Osprey sample: drawn scenes"


def ensure_project(api: LabelStudioApi, backend: BackendAddress, progress: Callable[[str], None]) -> int:
    """Make the sample project, its tasks and its connection where they are missing.

    If they exist, only the connection is corrected; annotations and settings of the project stay as they are.

    Args:
        api: Label Studio, as the first user.
        backend: where Label Studio reaches the backend.
        progress: called with the step that begins.

    Returns:
        The project's id.

    Raises:
        StackError: Label Studio refuses a request or does not answer.
    """
    try:
        progress("project")
        project_id = _ensure_named_project(api)
        _ensure_tasks(api, project_id, progress)
        progress("connection to the backend")
        connect(api, project_id, backend)
    except LabelStudioFailed as error:
        raise StackError(str(error)) from error
    return project_id


def _ensure_named_project(api: LabelStudioApi) -> int:
    for project in api.items("/api/projects", {}):
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

    tasks = api.items("/api/tasks", {"project": project_id, "fields": "task_only"})
    present = [str(task["data"].get("image", "")) for task in tasks]
    for number, seed in enumerate(DEMO_SEEDS, start=1):
        name = f"scene-{seed}.png"
        if any(url.endswith(name) for url in present):
            continue
        progress(f"scene {number} of {len(DEMO_SEEDS)}")
        picture = io.BytesIO()
        make_scene(seed).image.save(picture, "PNG")
        api.call("POST", f"/api/projects/{project_id}/import", files={"file": (name, picture.getvalue(), "image/png")})
