"""A throw-away project in the running one-machine stack, to measure clicks on their whole way.

The page's smart tool calls Label Studio's server, which adds the task and its drafts and calls the backend.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bench.service.annotator_page import Predict
from bench.service.scene_server import scene_png
from stack.components import BACKEND_USER, Stack
from worker.label_studio.api import LabelStudioApi
from worker.label_studio.connection import BackendAddress, connect


@dataclass(frozen=True)
class BenchProject:
    """`tasks` holds a scene's task id and image address by its seed."""

    project_id: int
    tasks: Mapping[int, tuple[int, str]]
    predict: Predict


@contextmanager
def bench_project(stack: Stack, seeds: Sequence[int], label_config: str) -> Iterator[BenchProject]:
    """A project with one task per seed, connected to the stack's backend; deleted at the end.

    Raises:
        LabelStudioFailed: Label Studio refuses something or does not answer.
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
    secrets = stack.secrets
    connect(
        api,
        project_id,
        BackendAddress(stack.backend_url, BACKEND_USER, secrets.backend_password, secrets.webhook_secret),
    )
    by_seed = tasks_by_seed(api, project_id)
    return BenchProject(project_id, {seed: by_seed[seed] for seed in seeds}, through_label_studio(api, project_id))


def import_picture(api: LabelStudioApi, project_id: int, name: str, png: bytes) -> None:
    """Upload a picture, which makes a task of it."""
    api.call("POST", f"/api/projects/{project_id}/import", files={"file": (name, png, "image/png")})


def tasks_by_seed(api: LabelStudioApi, project_id: int) -> dict[int, tuple[int, str]]:
    """Task id and image address of every `scene-SEED.png` of a project. Label Studio puts its own name before ours."""
    found = {}
    for task in api.items("/api/tasks", {"project": project_id, "fields": "task_only"}):
        name = str(task["data"]["image"]).rsplit("-", 1)[-1]
        found[int(name.removesuffix(".png"))] = (int(task["id"]), str(task["data"]["image"]))
    return found


def through_label_studio(api: LabelStudioApi, project_id: int) -> Predict:
    """Clicks as the page's smart tool sends them, to a project that is connected to one backend."""
    backend_id = int(api.call("GET", "/api/ml", params={"project": project_id})[0]["id"])

    def predict(task: dict[str, Any], context: dict[str, Any] | None) -> tuple[dict[str, Any], Mapping[str, str]]:
        if context is None:  # what opening the task in the page does
            api.call("GET", f"/api/tasks/{task['id']}", params={"project": project_id})
            return {}, {}
        body = {"task": task["id"], "context": context}
        return api.call("POST", f"/api/ml/{backend_id}/interactive-annotating", json=body).get("data") or {}, {}

    return predict
