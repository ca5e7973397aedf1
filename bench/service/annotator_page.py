"""Stand in for one annotator's page of Label Studio 1.23: send the same requests, keep the same regions.

A click becomes a POST to /predict with the whole task. The answer's items replace those of the same region, and the
next request contains them as the draft, each per-region text repeated with its geometry. `to_backend` posts as Label
Studio's server does; `temporary_project.py` uses a real server.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from label_config.geometry import region_mask
from label_config.reader import read_label_config

_VALUE_KEYS = {"textarea": "text", "choices": "choices", "taxonomy": "taxonomy"}


class BackendAnsweredBadlyError(Exception):
    """The backend's answer to a click contains no region; the message contains its notice."""


@dataclass(frozen=True)
class RegionAnswer:
    """One region as the backend answered it. `fields` holds each control's values, absent when empty."""

    region_id: str
    mask: NDArray[np.bool_]
    fields: Mapping[str, tuple[str, ...]]
    parent_id: str | None
    model_version: str
    elapsed_s: float
    meta: Mapping[str, Any]
    headers: Mapping[str, str]

    def text(self, name: str) -> str:
        """Return the values of a control as one text, "" when it is empty."""
        return " ".join(self.fields.get(name, ()))


# (task with its drafts, context of the smart tool) -> (the first of the answer's results, response headers)
Predict = Callable[[dict[str, Any], dict[str, Any] | None], tuple[dict[str, Any], Mapping[str, str]]]


def to_backend(client: httpx.Client, label_config: str, timeout_s: float = 120.0) -> Predict:
    """Return a `Predict` that posts to a backend directly. `client` has its address and credentials."""

    def predict(task: dict[str, Any], context: dict[str, Any] | None) -> tuple[dict[str, Any], Mapping[str, str]]:
        body = {
            "tasks": [task],
            "project": f"{task['project']}.1795199756",
            "label_config": label_config,
            "params": {"login": None, "password": None, "context": context},
        }
        response = client.post("/predict", json=body, timeout=timeout_s)
        response.raise_for_status()
        return (response.json().get("results") or [{}])[0], response.headers

    return predict


@dataclass
class AnnotatorPage:
    """One task open in a browser."""

    predict: Predict
    task_id: int
    image_url: str
    image_wh: tuple[int, int]
    label_config: str
    project_id: int = 1
    regions: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def open(self) -> None:
        """Send what opening a task sends; the backend warms up the image."""
        self.predict(self._task(), None)

    def click(self, x_px: float, y_px: float, *, positive: bool = True) -> RegionAnswer:
        """Click with the smart tool at a pixel of the image.

        Raises:
            BackendAnsweredBadlyError: no region came back.
            httpx.HTTPError: the backend cannot be reached, or its status is not 200.
        """
        config = read_label_config(self.label_config)
        control = next(prompt.name for prompt in config.prompts if prompt.kind == "keypoint")
        point = {
            "id": uuid.uuid4().hex[:10],
            "type": "keypoint",
            "from_name": control,
            "to_name": config.image_name,
            "origin": "manual",
            "original_width": self.image_wh[0],
            "original_height": self.image_wh[1],
            "image_rotation": 0,
            "is_positive": positive,
            "value": {
                # The pixel's middle, because a browser reports a position within the pixel.
                "x": 100 * (x_px + 0.5) / self.image_wh[0],
                "y": 100 * (y_px + 0.5) / self.image_wh[1],
                "width": 0.25,
                "labels": [],
            },
        }
        started = time.perf_counter()
        answer, headers = self.predict(self._task(), {"result": [point]})
        elapsed_s = time.perf_counter() - started
        items = answer.get("result") or []
        geometry = next((item for item in items if item.get("from_name") == config.output.name), None)
        mask = region_mask(geometry) if geometry else None
        if geometry is None or mask is None:
            raise BackendAnsweredBadlyError(
                f"expected a region for the click at ({x_px}, {y_px}) of {self.image_url[:80]}, got {_said(items)}"
            )
        own = [item for item in items if item["id"] == geometry["id"]]
        self._accept(items)
        return RegionAnswer(
            region_id=geometry["id"],
            mask=mask,
            fields={item["from_name"]: values for item in own if item is not geometry and (values := _values(item))},
            parent_id=geometry.get("parentID"),
            model_version=str(answer.get("model_version", "")),
            elapsed_s=elapsed_s,
            meta=geometry.get("meta") or {},
            headers=headers,
        )

    def _accept(self, items: list[dict[str, Any]]) -> None:
        """Replace each region's items by the answered ones, in Label Studio's stored form, as auto-accept does."""
        answered: dict[str, list[dict[str, Any]]] = {}
        for item in items:
            answered.setdefault(item["id"], []).append(item)
        for region_id, own in answered.items():
            geometry = own[0]
            shape = {key: value for key, value in geometry["value"].items() if not key.endswith("labels")}
            self.regions[region_id] = [
                geometry,
                *({**item, "origin": "prediction", "value": {**shape, **item["value"]}} for item in own[1:]),
            ]

    def _task(self) -> dict[str, Any]:
        """Return the task as Label Studio's server sends it, with the page's regions as its draft."""
        now = datetime.now(UTC).isoformat()
        result = [item for items in self.regions.values() for item in items]
        draft = {"id": self.task_id, "user": "eval@osprey.local", "result": result, "task": self.task_id}
        return {
            "id": self.task_id,
            "data": {read_label_config(self.label_config).image_key: self.image_url},
            "annotations": [],
            "drafts": [{**draft, "annotation": None, "created_at": now, "updated_at": now}] if result else [],
            "predictions": [],
            "meta": {},
            "created_at": now,
            "updated_at": now,
            "inner_id": self.task_id,
            "project": self.project_id,
        }


def _values(item: Mapping[str, Any]) -> tuple[str, ...]:
    value = item["value"].get(_VALUE_KEYS.get(item["type"], ""), [])
    # A taxonomy's value is a list of paths; the last step of a path is the answer.
    return tuple(str(entry[-1] if isinstance(entry, list) else entry) for entry in value if entry)


def _said(items: list[dict[str, Any]]) -> str:
    """Describe an answer without a region: its notice, or its number of items."""
    texts = [text for item in items for text in item.get("value", {}).get("text", [])]
    return f"the notice {' '.join(texts)!r}" if texts else f"{len(items)} items without one"
