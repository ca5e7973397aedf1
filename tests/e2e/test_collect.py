"""Claims about the correction store with the real Label Studio, its webhooks and API. No browser."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from demo.scenes import make_scene
from job_queue.queue import JobQueue
from learning.corrections.store import Store
from registry.versions import Registry
from tests.e2e.running_stack import RunningStack
from tests.support.submitted import CAR, CONFIG, region


def _wait(claim: Callable[[], bool], limit_s: float = 60.0) -> None:
    deadline = time.monotonic() + limit_s
    while not claim():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.2)


def car(category: str) -> list[dict]:
    return region("car00001", {**CAR, "category": [category]}, suggestion={"category": ["truck"]})


def test_store_follows_label_studio(stack: RunningStack) -> None:
    """Submissions, edits, skips and deletions reach the store by webhook, or by a reconcile if a webhook was lost."""
    picture = Image.fromarray(np.full((768, 1024, 3), 200, np.uint8))
    project = stack.make_project("collected", CONFIG, [picture, picture, picture])
    first, second, third = project.task_ids
    url = f"sqlite:///{Path(str(stack.stack.state.path)) / 'corrections.db'}"
    with stack.api() as api, Store.open(url) as store:

        def kept() -> list[tuple[int, str]]:
            return [(each.region.task, each.region.texts["category"][0]) for each in store.regions(project.id)]

        def submit(task_id: int, category: str, **more: object) -> int:
            body = {"result": car(category), "lead_time": 3.0, **more}
            return int(api.call("POST", f"/api/tasks/{task_id}/annotations/", json=body)["id"])

        made = submit(first, "car")
        _wait(lambda: kept() == [(first, "car")])
        (stored,) = store.regions(project.id)
        assert (stored.region.model_version, stored.region.changed[:1]) == ("nano-1", ("attribute",))
        assert stored.image_sha256
        assert store.problems(project.id) == []
        api.call("PATCH", f"/api/annotations/{made}/", json={"result": car("van")})
        _wait(lambda: kept() == [(first, "van")])
        submit(second, "bus", was_cancelled=True)
        submit(third, "tram")
        _wait(lambda: kept() == [(first, "van"), (third, "tram")])
        _wait(lambda: store.counts(project.id).skipped_annotations == 1)
        api.call("DELETE", f"/api/annotations/{made}/")
        _wait(lambda: kept() == [(third, "tram")])
        api.call("DELETE", f"/api/tasks/{third}/")
        _wait(lambda: kept() == [])
        stack.stop("backend")  # webhooks are lost
        stack.stop("data")
        submit(first, "ship")
        stack.start("backend")
        stack.start("data")  # it begins with a reconcile
        _wait(lambda: kept() == [(first, "ship")])


def test_start_training_makes_a_candidate(stack: RunningStack) -> None:
    """Label Studio's button starts a fine-tune on the newest submissions, and the gate gives its reason for failing."""
    scenes = [make_scene(seed, (256, 192)) for seed in (70, 71, 72)]
    project = stack.make_project("trained", CONFIG, [scene.image for scene in scenes])
    with stack.api() as api:
        for task_id, scene in zip(project.task_ids, scenes, strict=True):
            result = [
                item
                for thing in scene.objects[:3]
                for item in region(
                    f"thing{task_id}{thing.idx}",
                    {"category": ["thing"]},
                    suggestion={"category": [thing.category]},
                    mask=thing.mask,
                )
            ]
            api.call("POST", f"/api/tasks/{task_id}/annotations/", json={"result": result, "lead_time": 5.0})
        (connection,) = api.call("GET", "/api/ml", params={"project": project.id})
        api.call("POST", f"/api/ml/{connection['id']}/train", json={})
    queue = JobQueue(stack.stack.redis_url)
    _wait(lambda: bool((found := queue.finetune_progress()) and found.outcome), 400)
    registry = Registry(Path(str(stack.stack.state.path)) / "registry")
    (version,) = [each for each in registry.versions() if each.config["project"] == project.id]
    assert 1 <= version.config["entries"] <= len(scenes)  # images may be held out, depending on a hash of their address
    assert version.config["replayed"] > version.config["entries"]
    assert version.gate is not None
    asked = {each["name"]: each for each in version.gate["criteria"]}
    assert "the gate needs at least 10" in asked["better"]["says"]  # three images are not enough
    assert asked["base"]["detail"]["score"]["champion"]["value"] > 0.9
    assert registry.champion() is None


def test_lowest_score_is_opened_first(stack: RunningStack) -> None:
    """Label Studio's uncertainty sampling opens the task whose prediction has the lowest score first."""
    pictures = [Image.new("RGB", (64, 48), (number * 40, 0, 0)) for number in range(4)]
    project = stack.make_project("ordered", CONFIG, pictures)
    scores = dict(zip(project.task_ids, (0.9, 0.2, 0.7, 0.4), strict=True))
    with stack.api() as api:
        for task_id, score in scores.items():
            prediction = {"task": task_id, "result": [], "score": score, "model_version": "m1"}
            api.call("POST", "/api/predictions", json=prediction)
        settings = {"sampling": "Uncertainty sampling", "model_version": "m1"}
        api.call("PATCH", f"/api/projects/{project.id}", json=settings)
        opened = []
        for _ in scores:
            task = api.call("GET", f"/api/projects/{project.id}/next")
            opened.append(scores[int(task["id"])])
            api.call("POST", f"/api/tasks/{task['id']}/annotations/", json={"result": [], "lead_time": 1.0})
    assert opened == sorted(scores.values())
