"""The routes as Label Studio calls them: auth, limits, deadlines, and no traceback in any answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rq import Queue
from rq.serializers import JSONSerializer
from starlette.testclient import TestClient

from backend import app as app_module
from backend.app import Api
from backend.click.notices import NOTICE_ID
from backend.ml_backend import backend_class
from backend.predict import ClickService
from backend.settings import Settings
from backend.webhook import WebhookInbox, hint_of
from job_queue.contracts import CollectJob, FineTuneJob, ReconcileJob, WarmJob
from job_queue.errors import NoWorker
from job_queue.queue import JobQueue
from tests.support.click_fakes import FakeQueue, FixedVersion, MemorySessions, payload, point_item

CONFIGS = Path(__file__).parents[2] / "label_config"
XML = (CONFIGS / "bitmask.xml").read_text()
AUTH = ("osprey", "secret")
SETTINGS = Settings(password="secret", webhook_secret="hook", max_body_bytes=200_000, wait_budget_s=0.2, blind_share=0)

pytestmark = pytest.mark.redis


class Service:
    """The whole HTTP side over a fake queue; webhooks go to a real Redis."""

    def __init__(self, redis: Redis, settings: Settings = SETTINGS) -> None:
        self.queue, self.sessions = FakeQueue(), MemorySessions()
        self.clicks = ClickService(self.queue, self.sessions, FixedVersion(), settings)
        inbox = WebhookInbox(JobQueue(redis), self.sessions, self.clicks)
        self.app = Api(backend_class(self.clicks)(), self.queue, inbox, settings).app()
        self.client = TestClient(self.app, raise_server_exceptions=False)


@pytest.fixture
def service(redis_client: Redis) -> Iterator[Service]:
    service = Service(redis_client)
    with service.client:
        yield service


def click_body(*items: dict[str, Any], task_id: int = 7) -> dict[str, Any]:
    task = {"id": task_id, "project": 3, "data": {"image": "/data/upload/3/a.png"}, "drafts": [], "annotations": []}
    context = {"result": list(items)}
    params = {"login": None, "password": None, "context": context}
    return {"tasks": [task], "project": "3.1", "label_config": XML, "params": params}


def test_health_is_open_and_holds_no_details_without_the_password(service: Service) -> None:
    for path in ("/", "/health"):
        answer = service.client.get(path)
        assert answer.status_code == 200
        assert answer.json() == {"status": "UP", "model_class": "OspreyBackend"}
    assert service.client.get("/health", auth=AUTH).json()["workers"] == {"masks": 1, "describe": 1}


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/setup"), ("POST", "/predict"), ("POST", "/webhook"), ("GET", "/versions"), ("POST", "/versions"),
     ("POST", "/train"), ("GET", "/metrics")],
)  # fmt: skip
def test_every_other_route_needs_the_password(service: Service, method: str, path: str) -> None:
    for auth in (None, ("osprey", "wrong")):
        answer = service.client.request(method, path, auth=auth, content=b"{}")
        assert answer.status_code == 401
        assert "error" in answer.json()


def test_setup_returns_the_model_version(service: Service) -> None:
    body = {**payload("setup_request"), "schema": XML}
    answer = service.client.post("/setup", json=body, auth=AUTH)
    assert (answer.status_code, answer.json()) == (200, {"model_version": "osprey-nano-1"})


def test_setup_refuses_a_config_and_names_the_missing_markup(service: Service) -> None:
    """Label Studio shows the text under "error" to the person who adds the model."""
    answer = service.client.post("/setup", json={"schema": '<View><Image name="i" value="$i"/></View>'}, auth=AUTH)
    assert answer.status_code == 400
    assert "<BitmaskLabels" in answer.json()["error"]


def test_a_click_is_answered_with_one_result_and_its_timings(service: Service) -> None:
    answer = service.client.post("/predict", json=click_body(point_item(200, 160)), auth=AUTH)
    (result,) = answer.json()["results"]
    assert result["model_version"] == "osprey-nano-1"
    assert result["result"][0]["type"] == "bitmasklabels"
    assert 0 < result["score"] <= 1
    steps = [entry.split(";")[0] for entry in answer.headers["server-timing"].split(", ")]
    assert {"session", "segment", "describe", "results", "validate", "total"} <= set(steps)
    assert "dur" not in answer.text


def test_an_empty_context_gets_an_empty_result(service: Service) -> None:
    assert service.client.post("/predict", json=click_body(), auth=AUTH).json()["results"][0]["result"] == []


@pytest.mark.parametrize("params", [None, {"context": None}, {}])
def test_an_opened_task_gets_no_prediction_and_is_warmed(service: Service, params: Any) -> None:
    body = {**payload("predict_batch_request"), "label_config": XML, "params": params}
    answer = service.client.post("/predict", json=body, auth=AUTH)
    assert (answer.status_code, answer.json()) == (200, {"results": []})
    (warm,) = service.queue.of_kind(WarmJob)
    assert warm.image.url == body["tasks"][0]["data"]["image"]


def test_a_failing_click_is_still_200_with_a_visible_notice(service: Service) -> None:
    service.queue.segment_error = NoWorker("none")
    answer = service.client.post("/predict", json=click_body(point_item(200, 160)), auth=AUTH)
    assert answer.status_code == 200
    assert [item["id"] for item in answer.json()["results"][0]["result"]] == [NOTICE_ID]


@pytest.mark.parametrize(
    ("content", "status"),
    [(b"not json", 400), (b"[1]", 400), (b"{}", 400), (b'{"tasks": ["x"]}', 400), (b'{"tasks": 1}', 400),
     (b" " * 200_001, 413), (b"\xff\xfe", 400), (b"[" * 100_000, 400)],
)  # fmt: skip
def test_a_malformed_request_gets_a_short_reason(service: Service, content: bytes, status: int) -> None:
    answer = service.client.post("/predict", content=content, auth=AUTH)
    assert answer.status_code == status
    assert set(answer.json()) == {"error"}


def test_a_bug_is_a_500_without_a_traceback(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> str:
        raise RuntimeError("/srv/secret/file.py")

    monkeypatch.setattr(service.clicks, "model_version", broken)
    answer = service.client.get("/versions", auth=AUTH)
    assert answer.status_code == 500
    assert answer.json() == {"error": "internal error; the backend's log has the cause"}


def test_versions_lists_what_is_served(service: Service) -> None:
    assert service.client.get("/versions", auth=AUTH).json() == {"versions": ["osprey-nano-1"]}
    assert service.client.post("/versions", json={"project": "3.1"}, auth=AUTH).status_code == 200


def test_unknown_paths_and_methods_are_refused_as_json(service: Service) -> None:
    assert service.client.get("/predict", auth=AUTH).json() == {"error": "Method Not Allowed"}
    assert service.client.get("/../etc/passwd").status_code == 404


@pytest.mark.parametrize("path", ["/health", "/setup"])
def test_a_hanging_queue_does_not_hold_up_the_page(
    service: Service, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both routes answer inside Label Studio's limits while Redis hangs."""
    monkeypatch.setattr(app_module, "HEALTH_DEADLINE_S", 0.1)
    monkeypatch.setattr(app_module, "SETUP_DEADLINE_S", 0.1)
    released = threading.Event()
    monkeypatch.setattr(service.queue, "health", lambda: released.wait(20))
    monkeypatch.setattr(service.clicks, "model_version", lambda: released.wait(20))
    started = time.monotonic()
    method = service.client.get if path == "/health" else service.client.post
    answer = method(path, auth=AUTH, **({} if path == "/health" else {"json": {}}))
    waited_s = time.monotonic() - started
    released.set()
    assert answer.status_code == 200
    assert waited_s < 5


def test_a_hanging_click_is_answered_at_its_deadline(redis_client: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service(redis_client)
    released = threading.Event()
    service.queue.before_segment = lambda: released.wait(20)
    monkeypatch.setattr(Settings, "predict_deadline_s", 0.1)
    with service.client:
        answer = service.client.post("/predict", json=click_body(point_item(200, 160)), auth=AUTH)
        released.set()
    assert (answer.status_code, answer.json()) == (200, {"results": [{"result": []}]})


def test_clicks_are_served_side_by_side(service: Service) -> None:
    both_wait = threading.Barrier(2, timeout=20)
    service.queue.before_segment = both_wait.wait
    answers: dict[str, Any] = {}

    def click(name: str, x_px: float, y_px: float, task_id: int) -> None:
        body = click_body(point_item(x_px, y_px, name), task_id=task_id)
        answers[name] = service.client.post("/predict", json=body, auth=AUTH).json()

    threads = [threading.Thread(target=click, args=at) for at in (("a", 200, 160, 1), ("b", 350, 200, 2))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    masks = [answers[name]["results"][0]["result"][0]["value"]["imageDataURL"] for name in ("a", "b")]
    assert masks[0] != masks[1]


WEBHOOKS = ["annotation_created", "annotation_updated", "annotations_deleted", "project_updated", "start_training",
            "tasks_created", "tasks_deleted"]  # fmt: skip


def enqueued(redis: Redis) -> list[dict[str, Any]]:
    """Return the waiting data jobs as JSON."""
    queues = [Queue(f"osprey-data{kind}", connection=redis, serializer=JSONSerializer) for kind in ("", "-background")]
    return [job.args[0] for queue in queues for job in queue.jobs]


@pytest.mark.parametrize("name", WEBHOOKS)
def test_every_recorded_webhook_becomes_at_most_one_job_of_ids(
    service: Service, redis_client: Redis, name: str
) -> None:
    """The same webhook twice is one job that holds only numbers and a time; other webhooks give no job."""
    body = payload(f"webhook_{name}")
    for _ in range(2):
        answer = service.client.post("/webhook", json=body, headers={"X-Webhook-Secret": "hook"})
        assert (answer.status_code, answer.json()["action"]) == (200, body["action"])
    jobs = enqueued(redis_client)
    if "ANNOTATION" not in body["action"] and body["action"] != "TASKS_DELETED":
        assert jobs == []
        return
    (job,) = jobs
    assert (job["action"], job["project_id"]) == (body["action"], body["project"]["id"])
    assert job["task_ids"] or job["annotation_ids"]
    assert set(job) == {"version", "action", "project_id", "task_ids", "annotation_ids", "updated_at"}


def test_each_change_of_an_annotation_is_a_job_of_its_own(service: Service, redis_client: Redis) -> None:
    """Another `updated_at` gives another job: a running job may have read the earlier annotation."""
    for updated_at in ("2026-11-20T10:00:00Z", "2026-11-20T10:00:01Z"):
        annotation = {"id": 5, "updated_at": updated_at, "task": 9}
        body = {"action": "ANNOTATION_UPDATED", "annotation": annotation, "project": {"id": 3}, "task": {"id": 9}}
        assert service.client.post("/webhook", json=body, auth=AUTH).status_code == 200
    assert [job["task_ids"] for job in enqueued(redis_client)] == [[9], [9]]


def test_bulk_webhooks_do_not_become_huge_jobs() -> None:
    """A few annotations give one job with their tasks; thousands give one job for the whole project."""
    annotations = [{"id": number, "task": number % 3 + 1} for number in range(1, 10)]
    body = {"annotations": annotations, "project": {"id": 3}}
    assert hint_of("ANNOTATIONS_CREATED", body) == CollectJob(
        3, (1, 2, 3), tuple(range(1, 10)), "", "ANNOTATIONS_CREATED"
    )
    body["annotations"] = [{"id": number} for number in range(1, 5000)]
    assert hint_of("ANNOTATIONS_DELETED", body) == ReconcileJob(3, full=True)


def test_start_training_becomes_a_fine_tune() -> None:
    """Label Studio's button sends its project; without a project number there is no job."""
    job = hint_of("START_TRAINING", {"project": {"id": 3, "title": "street"}})
    assert isinstance(job, FineTuneJob)
    assert job.project_id == 3
    assert hint_of("START_TRAINING", {"project": {}}) is None


@pytest.mark.parametrize("project", [None, "3", True, -1, {"id": "x"}, {}])
def test_a_webhook_without_numbers_is_no_job(project: Any) -> None:
    """A body becomes a job only if it names a project and a task or annotation by number."""
    assert hint_of("ANNOTATION_CREATED", {"project": project, "task": {"id": 1}}) is None
    assert hint_of("ANNOTATION_CREATED", {"project": {"id": 3}, "task": {"id": project}}) is None


def test_a_webhook_is_answered_in_milliseconds(service: Service) -> None:
    """A body of half a megabyte is answered far within the second that Label Studio waits."""
    body = payload("webhook_annotation_created")
    body["annotation"]["result"] = [{"value": {"rle": [7] * 50_000}}]
    times_s = []
    for number in range(20):
        body["annotation"]["updated_at"] = str(number)
        started_s = time.monotonic()
        assert service.client.post("/webhook", json=body, auth=AUTH).status_code == 200
        times_s.append(time.monotonic() - started_s)
    assert sorted(times_s)[10] < 0.1


def test_a_webhook_needs_the_secret_or_the_password(service: Service) -> None:
    body = {"action": "ANNOTATION_CREATED"}
    assert service.client.post("/webhook", json=body).status_code == 401
    assert service.client.post("/webhook", json=body, headers={"X-Webhook-Secret": "no"}).status_code == 401
    assert service.client.post("/webhook", json=body, auth=AUTH).status_code == 200
    assert service.client.post("/webhook", json={}, auth=AUTH).status_code == 400


def test_deleted_tasks_are_forgotten(service: Service) -> None:
    service.client.post("/predict", json=click_body(point_item(200, 160)), auth=AUTH)
    assert service.sessions.load("7")
    service.client.post("/webhook", json={"action": "TASKS_DELETED", "tasks": [{"id": 7}]}, auth=AUTH)
    assert not service.sessions.load("7")


def test_new_tasks_are_warmed(service: Service) -> None:
    project = {"id": 3, "label_config": XML}
    task = {"id": 9, "data": {"image": "/data/upload/3/new.png"}}
    service.client.post("/webhook", json={"action": "TASKS_CREATED", "tasks": [task], "project": project}, auth=AUTH)
    assert [job.image.url for job in service.queue.of_kind(WarmJob)] == ["/data/upload/3/new.png"]


def test_a_webhook_that_cannot_be_stored_is_not_acknowledged(own_redis_server: Any) -> None:
    service = Service(Redis.from_url(own_redis_server.url, socket_timeout=0.5))
    own_redis_server.stop()
    with service.client:
        answer = service.client.post("/webhook", json=payload("webhook_annotation_created"), auth=AUTH)
    assert answer.status_code == 503


def test_train_and_metrics_answer(service: Service) -> None:
    assert service.client.post("/train", json={}, auth=AUTH).status_code == 200
    assert 'osprey_workers{queue="masks"} 1' in service.client.get("/metrics", auth=AUTH).text


def test_megabytes_of_drafts_are_accepted_by_default() -> None:
    assert Settings().max_body_bytes >= 64 * 1024**2
