"""A project's tasks and predictions, to pre-annotate it.

Lists contain no results, so they are short: which tasks there are, and which have a prediction of a model version.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from job_queue.errors import LabelStudioFailed
from worker.label_studio.api import LabelStudioApi
from worker.label_studio.task_filters import all_of, condition
from worker.settings import Settings

_PAGE_SIZE = 500


class PredictionsRefused(LabelStudioFailed):
    """Label Studio answers 400 to predictions: at least one of them is invalid, and none was stored."""


@contextmanager
def prediction_store(settings: Settings) -> Iterator[PredictionStore]:
    """Open a store for the Label Studio that the settings name, and close its connections at the end.

    Raises:
        LabelStudioFailed: the settings name no Label Studio.
    """
    with LabelStudioApi.from_settings(settings) as api:
        yield PredictionStore(api)


class PredictionStore:
    """Reads tasks and writes predictions of one Label Studio server.

    Every method raises `LabelStudioRefused` if Label Studio refuses the token, and `LabelStudioFailed` if it does not
    answer, has no such project or task, or does not allow the user of the token to see or change it.
    """

    def __init__(self, api: LabelStudioApi) -> None:
        self._api = api

    def label_config(self, project_id: int) -> str:
        """Return the project's labeling config."""
        return str(self._api.project(project_id)["label_config"])

    def tasks(self, project_id: int) -> list[dict[str, Any]]:
        """Return every task of the project with `id`, `data` and `project`, ordered by id."""
        return sorted(self._listed(project_id, "id,data,project", {}), key=lambda task: int(task["id"]))

    def tasks_with(self, project_id: int, model_version: str, among: Collection[int] | None = None) -> frozenset[int]:
        """Return the ids of the tasks (of those in `among`) that have a prediction of the model version."""
        column = "predictions_model_versions"
        query = all_of(condition(column, "contains", "String", [model_version]))
        if among is not None:
            query["selectedItems"] = {"all": False, "included": sorted(among)}
        # "contains" compares text: osprey@1 is contained in osprey@12. The column lists whole versions.
        return frozenset(
            int(task["id"])
            for task in self._listed(project_id, f"id,{column}", query)
            if model_version in str(task.get(column, "")).split(",")
        )

    def push(self, project_id: int, predictions: Sequence[dict[str, Any]]) -> int:
        """Store predictions in one call and return how many were stored. Label Studio leaves out some invalid ones.

        Raises:
            PredictionsRefused: Label Studio answers 400; nothing was stored.
        """
        path = f"/api/projects/{project_id}/import/predictions"
        try:
            answer = self._api.call("POST", path, json=list(predictions))
        except LabelStudioFailed as error:
            if error.status == 400:
                raise PredictionsRefused(str(error), 400) from error
            raise
        return int(answer.get("created", 0)) if isinstance(answer, dict) else 0

    def remove(self, task_id: int, model_version: str) -> None:
        """Delete a task's predictions of a model version."""
        for prediction in self._api.call("GET", "/api/predictions", params={"task": task_id}):
            if prediction.get("model_version") == model_version:
                self._delete(int(prediction["id"]))

    def _delete(self, prediction_id: int) -> None:
        try:
            self._api.call("DELETE", f"/api/predictions/{prediction_id}")
        except LabelStudioFailed as error:
            if error.status != 404:  # 404: another run has deleted it
                raise

    def _listed(self, project_id: int, columns: str, query: dict[str, Any]) -> Iterator[dict[str, Any]]:
        ordered = json.dumps({"ordering": ["tasks:id"], **query})
        return self._api.items("/api/tasks", {"project": project_id, "include": columns, "query": ordered}, _PAGE_SIZE)
