"""One task in an annotator's page: clicks go to a `ClickService` over a fake queue, and drafts can be saved."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from backend.click.notices import NOTICE_ID
from backend.predict import Answer, ClickService
from backend.settings import Settings
from label_config.geometry import region_mask
from label_config.reader import read_label_config
from label_config.validate import validate_results
from tests.support.click_fakes import FakeQueue, FixedVersion, MemorySessions, draft_of, point_item

CONFIGS = Path(__file__).parents[2] / "label_config"
XML = (CONFIGS / "bitmask.xml").read_text()


class Desk:
    """One task, its session memory and the service that answers its clicks."""

    def __init__(self, xml: str = XML) -> None:
        self.xml = xml
        self.queue = FakeQueue()
        self.sessions = MemorySessions()
        settings = Settings(wait_budget_s=0.2, blind_share=0)
        self.service = ClickService(self.queue, self.sessions, FixedVersion(), settings)
        self.task: dict[str, Any] = {
            "id": 7, "project": 3, "data": {"image": "/data/upload/3/a.png"}, "annotations": [], "drafts": [],
        }  # fmt: skip

    def send(self, *items: dict[str, Any]) -> Answer:
        answer = self.service.click(self.task, self.xml, {"result": list(items)})
        assert validate_results(read_label_config(self.xml), answer.items) == []
        return answer

    def click(self, x_px: float, y_px: float, item_id: str = "p1", *, positive: bool = True) -> Answer:
        return self.send(point_item(x_px, y_px, item_id, positive=positive))

    def save_draft(self, *answers: Answer, age_s: float = 0.0) -> list[dict[str, Any]]:
        """Save the answers as the page's draft; return the draft's items, so that a test can edit them."""
        saved_at = (datetime.now(UTC) - timedelta(seconds=age_s)).isoformat()
        result = [
            item
            for answer in answers
            for item in draft_of([i for i in answer.items if i["id"] != NOTICE_ID], saved_at)["result"]
        ]
        self.task["drafts"] = [{"id": 1, "user": "ann@example.com", "updated_at": saved_at, "result": result}]
        return result


def mask_of(answer: Answer) -> np.ndarray:
    mask = region_mask(answer.items[0])
    assert mask is not None
    return mask


def texts(answer: Answer) -> dict[str, list[Any]]:
    return {item["from_name"]: item["value"]["text"] for item in answer.items if item["type"] == "textarea"}


def notice(answer: Answer) -> list[str] | None:
    return next((item["value"]["text"] for item in answer.items if item["id"] == NOTICE_ID), None)


FIVE_FIELDS = {
    "category": ["ball"],
    "part": ["whole"],
    "attribute": ["red", "rubber"],
    "short_description": ["a red ball"],
    "detailed_description": ["A red ball on a white ground."],
}


def blind_desk() -> Desk:
    """Return a desk whose every task is blind."""
    desk = Desk()
    settings = Settings(wait_budget_s=0.2, blind_share=1)
    desk.service = ClickService(desk.queue, desk.sessions, FixedVersion(), settings)
    return desk
