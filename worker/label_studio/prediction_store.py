"""A project's tasks and predictions through Label Studio's API, as much as pre-annotation needs.

Listing is light (no results travel): which tasks there are, and which already have a prediction of a model version.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

import httpx

from job_queue.errors import OspreyError
from worker.guarded_http import AllowedHosts, GuardedHttp
from worker.label_studio.credentials import LabelStudio, origin_of
from worker.settings import Settings

_PAGE_SIZE = 500
_TIMEOUT_S = 100.0


class LabelStudioFailed(OspreyError):
    """Label Studio does not do what was asked; the message says what, and what to check."""


class PredictionsRefused(LabelStudioFailed):
    """Label Studio answers 400 to predictions: at least one of them is not to its liking."""


@contextmanager
def prediction_store(settings: Settings) -> Iterator[PredictionStore]:
    """The store that the settings name, with its connections, closed at the end.

    Raises:
        LabelStudioFailed: the settings name no Label Studio.
    """
    if not settings.label_studio_url:
        raise LabelStudioFailed("set OSPREY_LABEL_STUDIO_URL to Label Studio's address and OSPREY_LABEL_STUDIO_TOKEN")
    _, host, port = origin_of(settings.label_studio_url)
    with closing(GuardedHttp(AllowedHosts(origins=[(host, port or 80)]), settings.image_timeout_s)) as http:
        label_studio = LabelStudio(settings.label_studio_url, settings.label_studio_token, http)
        with PredictionStore(settings.label_studio_url, label_studio) as store:
            yield store


class PredictionStore:
    """Reads tasks and writes predictions of one Label Studio server. Use it in a `with` statement."""

    def __init__(self, base_url: str, label_studio: LabelStudio) -> None:
        self._base_url = base_url.rstrip("/")
        self._label_studio = label_studio
        # Proxies of the environment are for the outside world; Label Studio's address is given as it is reached.
        self._client = httpx.Client(timeout=_TIMEOUT_S, trust_env=False)

    def __enter__(self) -> PredictionStore:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def label_config(self, project_id: int) -> str:
        """The project's labeling config.

        Raises:
            LabelStudioFailed: no answer, no such project, or no right to see it.
        """
        project = self._call("GET", f"/api/projects/{project_id}")
        if not isinstance(project, dict) or not isinstance(project.get("label_config"), str):
            raise LabelStudioFailed(f"{self._base_url} answers without a labeling config; is it a Label Studio?")
        return str(project["label_config"])

    def tasks(self, project_id: int) -> list[dict[str, Any]]:
        """Every task of the project with `id`, `data` and `project`, by id.

        Raises:
            LabelStudioFailed: as for `label_config`.
        """
        tasks = self._listed(project_id, "id,data,project", {})
        return sorted(tasks, key=lambda task: int(task["id"]))

    def tasks_with(self, project_id: int, model_version: str, among: Collection[int] | None = None) -> frozenset[int]:
        """The ids of the tasks (of those in `among`) that have a prediction of the model version.

        Raises:
            LabelStudioFailed: as for `label_config`.
        """
        column = "predictions_model_versions"
        holds = {
            "filter": f"filter:tasks:{column}",
            "operator": "contains",
            "type": "String",
            "value": [model_version],
        }
        query: dict[str, Any] = {"filters": {"conjunction": "and", "items": [holds]}}
        if among is not None:
            query["selectedItems"] = {"all": False, "included": sorted(among)}
        # "contains" is of text: osprey@1 is in osprey@12. The column itself says which versions there are.
        return frozenset(
            int(task["id"])
            for task in self._listed(project_id, f"id,{column}", query)
            if model_version in str(task.get(column, "")).split(",")
        )

    def push(self, project_id: int, predictions: Sequence[dict[str, Any]]) -> int:
        """Store predictions in one call; returns how many were. Label Studio leaves out those that it finds invalid.

        Raises:
            PredictionsRefused: Label Studio answers 400; nothing was stored.
            LabelStudioFailed: as for `label_config`.
        """
        answer = self._call("POST", f"/api/projects/{project_id}/import/predictions", body=list(predictions))
        return int(answer.get("created", 0)) if isinstance(answer, dict) else 0

    def remove(self, task_id: int, model_version: str) -> None:
        """Delete a task's predictions of a model version.

        Raises:
            LabelStudioFailed: as for `label_config`.
        """
        for prediction in self._call("GET", "/api/predictions", {"task": task_id}):
            if prediction.get("model_version") == model_version:
                self._call("DELETE", f"/api/predictions/{prediction['id']}")

    def _listed(self, project_id: int, columns: str, query: dict[str, Any]) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = []
        while True:
            answer = self._call(
                "GET",
                "/api/tasks",
                {
                    "project": project_id,
                    "include": columns,
                    "page": len(listed) // _PAGE_SIZE + 1,
                    "page_size": _PAGE_SIZE,
                    "query": json.dumps({"ordering": ["tasks:id"], **query}),
                },
            )
            tasks = answer.get("tasks") if isinstance(answer, dict) else None
            if not isinstance(tasks, list) or not isinstance(answer.get("total"), int):
                raise LabelStudioFailed(f"{self._base_url}/api/tasks answers without a list of tasks")
            listed += tasks
            # A page beyond the last one is an error in Label Studio, so the total says when to stop.
            if not tasks or len(listed) >= answer["total"]:
                return listed

    def _call(self, method: str, path: str, query: dict[str, Any] | None = None, body: Any = None) -> Any:
        try:
            answer = self._once(method, path, query, body, fresh=False)
            if answer.status_code == 401:  # the access token ended in between
                answer = self._once(method, path, query, body, fresh=True)
        except httpx.HTTPError as error:
            raise LabelStudioFailed(
                f"Label Studio at {self._base_url} does not answer ({type(error).__name__}: {error}); "
                "check OSPREY_LABEL_STUDIO_URL"
            ) from error
        if answer.status_code == 400 and method == "POST":
            raise PredictionsRefused(f"Label Studio refuses: {answer.text[:300]}")
        if answer.status_code == 401:
            raise LabelStudioFailed(
                "Label Studio refuses the token; put a personal access token (Account & Settings) "
                "into OSPREY_LABEL_STUDIO_TOKEN"
            )
        if answer.status_code in (403, 404) and method != "DELETE":
            raise LabelStudioFailed(
                f"Label Studio answers {answer.status_code} to {path}; no such project, "
                "or the user of the token may not see or change it"
            )
        if not answer.is_success and answer.status_code != 404:
            raise LabelStudioFailed(f"Label Studio answers {answer.status_code} to {path}: {answer.text[:200]}")
        try:
            return answer.json() if answer.content else None
        except ValueError as error:
            raise LabelStudioFailed(f"{self._base_url}{path} does not answer with JSON") from error

    def _once(self, method: str, path: str, query: dict[str, Any] | None, body: Any, *, fresh: bool) -> httpx.Response:
        headers = self._label_studio.headers(fresh=fresh)
        return self._client.request(method, self._base_url + path, params=query, json=body, headers=headers)
