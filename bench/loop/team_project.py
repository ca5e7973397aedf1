"""The team's project in the simulation's Label Studio: labeling config, drawn pictures, clicks, submissions."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Self

from bench.loop.team import team_scene
from bench.service.annotator_page import AnnotatorPage
from bench.service.temporary_project import import_picture, tasks_by_seed, through_label_studio
from demo.scenes import Scene
from label_config.ready_configs import BITMASK
from stack.child_processes import backend_address
from stack.components import Stack
from worker.label_studio.api import LabelStudioApi
from worker.label_studio.connection import connect

TITLE = "A team with terms of its own"


class TeamProject(AbstractContextManager["TeamProject"]):
    """One project, created without `project_id`, otherwise found by it. Threads may share it."""

    def __init__(self, stack: Stack, project_id: int | None) -> None:
        """Connect the project to the stack's backend, whose port may have changed.

        Raises:
            LabelStudioFailed: Label Studio rejects a request or does not answer.
        """
        self.label_config = BITMASK.read_text(encoding="utf-8")
        self._api = LabelStudioApi(stack.label_studio_url, stack.secrets.label_studio_token)
        self.id = self._make() if project_id is None else project_id
        connect(self._api, self.id, backend_address(stack))
        self._predict = through_label_studio(self._api, self.id)

    def ensure_pictures(self, seeds: Sequence[int]) -> dict[int, tuple[int, str]]:
        """Import the scenes that are missing; return task id and image address of each."""
        present = tasks_by_seed(self._api, self.id)
        for seed in seeds:
            if seed not in present:
                with io.BytesIO() as file:
                    team_scene(seed).image.save(file, "PNG", compress_level=1)
                    import_picture(self._api, self.id, f"scene-{seed}.png", file.getvalue())
        found = tasks_by_seed(self._api, self.id)
        return {seed: found[seed] for seed in seeds}

    def page(self, scene: Scene, task: tuple[int, str]) -> AnnotatorPage:
        """Open a task as an annotator does."""
        page = AnnotatorPage(self._predict, task[0], task[1], scene.image_wh, self.label_config, self.id)
        page.open()
        return page

    def submit(self, task_id: int, result: Sequence[Mapping[str, Any]], lead_time_s: float) -> int:
        """Submit an annotation, which Label Studio reports to the backend by webhook; return its id."""
        body = {"result": list(result), "lead_time": lead_time_s, "was_cancelled": False}
        return int(self._api.call("POST", f"/api/tasks/{task_id}/annotations", json=body)["id"])

    def discard(self, task_id: int) -> None:
        """Delete the annotations of a task that a killed simulation submitted without recording them."""
        for annotation in self._api.call("GET", f"/api/tasks/{task_id}/annotations"):
            self._api.call("DELETE", f"/api/annotations/{annotation['id']}")

    def _make(self) -> int:
        made = self._api.call(
            "POST",
            "/api/projects",
            json={
                "title": TITLE,
                "label_config": self.label_config,
                "reveal_preannotations_interactively": True,
                "show_collab_predictions": False,
            },
        )
        return int(made["id"])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._api.close()
