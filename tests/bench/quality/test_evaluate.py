"""Claims about the measurement: true answers score 1 everywhere, a false one is found, no answer scores 0."""

from __future__ import annotations

import itertools
import json
from typing import Any

import httpx
import numpy as np
import pytest

from bench.quality.evaluate import Evaluator
from bench.quality.scores import MEASURES, mask_iou, table
from bench.service.annotator_page import AnnotatorPage, BackendAnsweredBadlyError, to_backend
from demo.scenes import Scene, SceneObject, ScenePart, make_scene
from demo.scenes.grammar import detailed_description, short_description
from label_config.geometry import encode_bitmask_png
from label_config.ready_configs import BITMASK


class OracleBackend:
    """Answers /predict with the truth: first the object under the click, then its part, then the sub-part.

    `late` clicks on a new region get the mask only; `lie` changes a true field into what is said.
    """

    def __init__(self, scene: Scene, late: int = 0, lie: dict[str, str] | None = None) -> None:
        self.scene, self.late, self.lie = scene, late, lie or {}
        self.requests: list[dict[str, Any]] = []
        self.clicks: dict[tuple[int, str], int] = {}

    def __call__(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        self.requests.append(body)
        task = body["tasks"][0]
        if body["params"]["context"] is None:
            return httpx.Response(200, json={"results": [{"result": []}]})
        value = body["params"]["context"]["result"][0]["value"]
        width, height = self.scene.image_wh
        x, y = int(value["x"] / 100 * width), int(value["y"] / 100 * height)
        known = {item["id"] for draft in task["drafts"] for item in draft["result"]}
        chain = self._under(x, y)
        ids = [f"r{idx}-{x}-{y}" for idx in range(len(chain))]
        newest = max((idx for idx, name in enumerate(ids) if name in known), default=-1)
        incomplete = newest >= 0 and self.clicks.get((task["id"], ids[newest]), 0) <= self.late
        level = newest if incomplete else min(newest + 1, len(chain) - 1)
        key = (task["id"], ids[level])
        self.clicks[key] = self.clicks.get(key, 0) + 1
        parent = ids[level - 1] if level else None
        items = self._items(chain[level], ids[level], parent, complete=self.clicks[key] > self.late)
        return httpx.Response(200, json={"results": [{"result": items, "score": 1.0, "model_version": "oracle"}]})

    def _under(self, x: int, y: int) -> list[SceneObject | ScenePart]:
        thing = next(thing for thing in self.scene.objects if thing.mask[y, x])
        part = next((part for part in thing.parts if part.mask[y, x]), None)
        subpart = next((sub for sub in part.subparts if sub.mask[y, x]), None) if part else None
        return [region for region in (thing, part, subpart) if region is not None]

    def _items(
        self, region: SceneObject | ScenePart, region_id: str, parent: str | None, *, complete: bool
    ) -> list[dict[str, Any]]:
        frame = {
            "id": region_id,
            "to_name": "image",
            "original_width": self.scene.image_wh[0],
            "original_height": self.scene.image_wh[1],
            "image_rotation": 0,
        }
        value = {"format": "png", "imageDataURL": encode_bitmask_png(region.mask), "bitmasklabels": ["Object"]}
        geometry = {**frame, "type": "bitmasklabels", "from_name": "mask", "value": value, "origin": "prediction"}
        if parent:
            geometry["parentID"] = parent
        owner = region if isinstance(region, SceneObject) else self.scene.objects[region.object_idx]
        fields = {
            "category": [owner.category],
            "attribute": [region.color, region.material],
            "short_description": [short_description(self.scene, region)],
            "detailed_description": [detailed_description(self.scene, region)],
        }
        if isinstance(region, ScenePart):
            fields["part"] = [region.name]
        fields |= {name: [said] for name, said in self.lie.items()}
        if not complete:
            return [geometry]
        texts = [
            {**frame, "type": "textarea", "from_name": name, "value": {"text": values}}
            for name, values in fields.items()
        ]
        return [geometry, *texts]


@pytest.fixture(scope="module")
def scene() -> Scene:
    return make_scene(10_000_000, (256, 192))


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.quality.evaluate._LATE_PAUSE_S", 0.0)


def _evaluate(scene: Scene, backend: Any) -> dict[str, float]:
    with httpx.Client(base_url="http://backend", transport=httpx.MockTransport(backend)) as client:
        evaluator = Evaluator(
            to_backend(client, BITMASK.read_text()),
            lambda seed: f"http://pictures/{seed}",
            BITMASK.read_text(),
            itertools.count(1),
        )
        rows = table(evaluator.evaluate(scene, parts_per_object=2))
    return {row.measure.key: row.value for row in rows}


def test_an_oracle_reaches_one_in_every_measure(scene: Scene) -> None:
    reached = _evaluate(scene, OracleBackend(scene))
    assert reached == dict.fromkeys((measure.key for measure in MEASURES), 1.0)


def test_late_words_are_asked_for_again(scene: Scene) -> None:
    """Quality is measured, not latency: two clicks without field values change nothing."""
    reached = _evaluate(scene, OracleBackend(scene, late=2))
    assert reached == dict.fromkeys((measure.key for measure in MEASURES), 1.0)


@pytest.mark.parametrize(
    ("field", "said", "failing"),
    [
        ("category", "spoon", {"object_category", "part_category"}),
        ("part", "spoon", {"part_name"}),
        ("attribute", "shiny", {"color", "material", "object_color", "object_material", "part_color", "part_material"}),
        ("short_description", "a thing", {"object_short", "part_short"}),
        ("detailed_description", "It is a thing.", {"object_detailed", "part_detailed"}),
    ],
)
def test_a_wrong_field_fails_its_measures_and_no_other(scene: Scene, field: str, said: str, failing: set[str]) -> None:
    reached = _evaluate(scene, OracleBackend(scene, lie={field: said}))
    assert {key for key, value in reached.items() if value == 0.0} == failing
    assert all(value == 1.0 for key, value in reached.items() if key not in failing)


def test_a_backend_that_only_gives_notices_scores_zero(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    def notice(request: httpx.Request) -> httpx.Response:
        item = {
            "id": "n",
            "type": "textarea",
            "from_name": "notice",
            "to_name": "image",
            "value": {"text": ["no worker"]},
        }
        return httpx.Response(200, json={"results": [{"result": [item]}]})

    reached = _evaluate(scene, notice)
    assert set(reached.values()) == {0.0}
    assert "the notice 'no worker'" in capsys.readouterr().err


def test_a_machine_that_is_not_ready_at_first_costs_nothing(scene: Scene) -> None:
    """After a notice instead of the first region the click is repeated and does not count as a miss."""
    oracle = OracleBackend(scene)
    asked: set[int] = set()

    def busy_at_first(request: httpx.Request) -> httpx.Response:
        task_id = json.loads(request.content)["tasks"][0]["id"]
        if task_id in asked:
            return oracle(request)
        asked.add(task_id)
        return httpx.Response(200, json={"results": [{"result": []}]})

    assert set(_evaluate(scene, busy_at_first).values()) == {1.0}


def test_the_page_sends_its_regions_as_label_studio_does(scene: Scene) -> None:
    """The draft repeats the region's geometry in each of its texts; a failed request is raised."""
    backend = OracleBackend(scene)
    with httpx.Client(base_url="http://backend", transport=httpx.MockTransport(backend)) as client:
        page = AnnotatorPage(
            to_backend(client, BITMASK.read_text()),
            5,
            "http://pictures/1",
            scene.image_wh,
            BITMASK.read_text(),
        )
        page.open()
        point = scene.objects[0].inner_point_px
        first = page.click(*point)
        page.click(*point)
    assert backend.requests[0]["params"]["context"] is None
    sent = backend.requests[2]["tasks"][0]["drafts"][0]["result"]
    assert {item["id"] for item in sent} == {first.region_id}
    assert all("imageDataURL" in item["value"] for item in sent)
    assert [item["value"]["text"] for item in sent if item["from_name"] == "category"] == [[scene.objects[0].category]]

    with httpx.Client(base_url="http://b", transport=httpx.MockTransport(lambda _: httpx.Response(500))) as client:
        page = AnnotatorPage(
            to_backend(client, BITMASK.read_text()),
            6,
            "http://pictures/1",
            scene.image_wh,
            BITMASK.read_text(),
        )
        with pytest.raises(httpx.HTTPStatusError):
            page.click(*point)


def test_an_answer_without_a_region_is_an_error(scene: Scene) -> None:
    empty = httpx.MockTransport(lambda _: httpx.Response(200, json={"results": [{"result": []}]}))
    with httpx.Client(base_url="http://b", transport=empty) as client:
        page = AnnotatorPage(
            to_backend(client, BITMASK.read_text()),
            7,
            "http://pictures/1",
            scene.image_wh,
            BITMASK.read_text(),
        )
        with pytest.raises(BackendAnsweredBadlyError, match="0 items without one"):
            page.click(1, 1)


def test_mask_iou_refuses_masks_of_different_pictures() -> None:
    with pytest.raises(ValueError, match="two masks of one picture"):
        mask_iou(np.zeros((2, 3), bool), np.zeros((3, 2), bool))
