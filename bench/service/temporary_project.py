"""A temporary project in the running one-machine stack, to measure clicks through Label Studio's server.

The page's smart tool calls Label Studio's server, which adds the task and its drafts and calls the backend.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bench.service.annotator_page import Predict
from bench.service.scene_server import scene_png
from stack.child_processes import backend_address
from stack.components import Stack
from worker.label_studio.api import LabelStudioApi
from worker.label_studio.connection import connect


@dataclass(frozen=True)
class BenchProject:
    """A project. `tasks` maps each scene's seed to its task id and image address."""

    project_id: int
    tasks: Mapping[int, tuple[int, str]]
    predict: Predict


@contextmanager
def bench_project(stack: Stack, seeds: Sequence[int], label_config: str) -> Iterator[BenchProject]:
    """Create a project with one task per seed, connected to the stack's backend; delete it at the end.

    Raises:
        LabelStudioFailed: Label Studio rejects a request or does not answer.
    """
    api = LabelStudioApi(stack.label_studio_url, stack.secrets.label_studio_token)
    try:
        project_id = int(api.call("POST", "/api/projects", json={"title": "bench", "label_config": label_config})["id"])
        try:
            yield _filled(api, stack, project_id, seeds)
        finally:
            api.call("DELETE", f"/api/projects/{project_id}")
    finally:
        api.close()


def _filled(api: LabelStudioApi, stack: Stack, project_id: int, seeds: Sequence[int]) -> BenchProject:
    for seed in seeds:
        import_picture(api, project_id, f"scene-{seed}.png", scene_png(seed))
    connect(api, project_id, backend_address(stack))
    by_seed = tasks_by_seed(api, project_id)
    return BenchProject(project_id, {seed: by_seed[seed] for seed in seeds}, through_label_studio(api, project_id))


def import_picture(api: LabelStudioApi, project_id: int, name: str, png: bytes) -> None:
    """Upload a picture; Label Studio creates a task for it."""
    api.call("POST", f"/api/projects/{project_id}/import", files={"file": (name, png, "image/png")})


def tasks_by_seed(api: LabelStudioApi, project_id: int) -> dict[int, tuple[int, str]]:
    """Task id and image address of every `scene-SEED.png` of a project. Label Studio puts its own name before ours."""
    found = {}
    for task in api.items("/api/tasks", {"project": project_id, "fields": "task_only"}):
        name = str(task["data"]["image"]).rsplit("-", 1)[-1]
        found[int(name.removesuffix(".png"))] = (int(task["id"]), str(task["data"]["image"]))
    return found


def through_label_studio(api: LabelStudioApi, project_id: int) -> Predict:
    """Return a `Predict` that clicks as the page's smart tool does, in a project with one backend."""
    backend_id = int(api.call("GET", "/api/ml", params={"project": project_id})[0]["id"])

    def predict(task: dict[str, Any], context: dict[str, Any] | None) -> tuple[dict[str, Any], Mapping[str, str]]:
        if context is None:  # the page opens the task
            api.call("GET", f"/api/tasks/{task['id']}", params={"project": project_id})
            return {}, {}
        body = {"task": task["id"], "context": context}
        return api.call("POST", f"/api/ml/{backend_id}/interactive-annotating", json=body).get("data") or {}, {}

    return predict
