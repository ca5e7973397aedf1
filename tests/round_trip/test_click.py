"""Claims about a click with a real backend, a real Redis and a real worker process; only the two models are fakes.

The answers are checked as Label Studio's page gets them. A failure must give a notice in the page, the next click must
work, and no failure may need a restart of another process.
"""

from __future__ import annotations

import io
import threading
import time
from pathlib import Path

import httpx
import pytest
import uvicorn
from PIL import Image

from backend.main import build_app
from backend.settings import Settings
from bench.service.annotator_page import AnnotatorPage, BackendAnsweredBadlyError, to_backend
from tests.support.fake_label_studio import PERSONAL_ACCESS_TOKEN, FakeLabelStudio, Reply
from tests.support.worker_process import WorkerProcess

pytestmark = pytest.mark.redis

CONFIG = (Path(__file__).parents[2] / "label_config" / "bitmask.xml").read_text()
WH = (64, 48)
FIELDS = {"category", "attribute", "short_description", "detailed_description"}


def png(wh: tuple[int, int] = WH) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", wh, "teal").save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def studio():
    server = FakeLabelStudio()
    server.replies["/data/upload/1/a.png"] = Reply(body=png(), needs_token=True)
    yield server
    server.close()


@pytest.fixture
def redis(own_redis_server):
    return own_redis_server


@pytest.fixture
def client(redis):
    settings = Settings.from_env(
        {"OSPREY_REDIS_URL": redis.url, "OSPREY_BACKEND_USER": "u", "OSPREY_BACKEND_PASSWORD": "p"}
    )
    app = build_app(settings.model_copy(update={"mask_wait_s": 4.0}))
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", auth=("u", "p"), trust_env=False) as client:
        yield client
    server.should_exit = True
    thread.join()


@pytest.fixture
def start_worker(redis, studio, tmp_path):
    started = []

    def start(queues: str = "masks,describe", **options) -> WorkerProcess:
        environ = {"OSPREY_LABEL_STUDIO_URL": studio.url, "OSPREY_LABEL_STUDIO_TOKEN": PERSONAL_ACCESS_TOKEN}
        started.append(WorkerProcess(redis.url, tmp_path, queues, environ=environ, **options))
        started[-1].wait_until_ready()
        return started[-1]

    yield start
    for worker in started:
        if worker.process.poll() is None:
            worker.kill()


@pytest.fixture
def open_page(client):
    task_ids = iter(range(100, 200))

    def page(url: str = "/data/upload/1/a.png", wh: tuple[int, int] = WH) -> AnnotatorPage:
        return AnnotatorPage(to_backend(client, CONFIG), next(task_ids), url, wh, CONFIG)

    return page


def refused(page: AnnotatorPage, *point_px: float) -> str:
    """Return the notice that the page gets instead of a region."""
    with pytest.raises(BackendAnsweredBadlyError) as caught:
        page.click(*point_px)
    return str(caught.value)


def test_click_gives_a_mask_and_its_fields(open_page, start_worker):
    start_worker()
    page = open_page()
    page.open()
    answer = page.click(30, 20)
    assert answer.mask.shape == (48, 64)
    assert answer.mask[20, 30]
    assert set(answer.fields) >= FIELDS
    assert answer.model_version == "osprey-fake-1"


def test_slow_words_come_with_the_next_answer(open_page, start_worker):
    """A describe worker that takes seconds does not delay the mask; its answers follow."""
    start_worker("masks")
    start_worker("describe", describe_delay_s=0.9)
    page = open_page()
    start = time.monotonic()
    first = page.click(30, 20)
    assert time.monotonic() - start < 2.5
    assert not set(first.fields) >= FIELDS
    time.sleep(6)
    page.click(8, 40)
    words = {item["from_name"] for item in page.regions[first.region_id]}
    assert words >= FIELDS


def test_no_worker_is_told_and_heals(open_page, start_worker):
    page = open_page()
    assert "No worker" in refused(page, 30, 20)
    start_worker()
    assert page.click(30, 20).mask.any()


def test_stopped_worker_is_told_at_once(open_page, start_worker):
    worker = start_worker()
    page = open_page()
    page.click(30, 20)
    worker.stop()
    start = time.monotonic()
    assert "No worker" in refused(open_page(), 30, 20)
    assert time.monotonic() - start < 1.0


def test_without_a_describe_worker_the_mask_still_comes(open_page, start_worker):
    start_worker("masks")
    assert open_page().click(30, 20).mask.any()


def test_redis_down_is_told_within_seconds_and_heals(open_page, start_worker, redis):
    worker = start_worker()
    page = open_page()
    page.click(30, 20)
    redis.stop()
    start = time.monotonic()
    assert "queue does not answer" in refused(page, 8, 40)
    assert time.monotonic() - start < 3.0
    redis.start()
    worker.wait_until_ready()
    assert page.click(8, 40).mask.any()


@pytest.mark.parametrize(
    ("reply", "notice"),
    [
        (Reply(404, b"gone"), "cannot get this task's image"),
        (Reply(200, b"<html>no image</html>"), "cannot read this task's image"),
        (Reply(200, png((48, 64))), "reload the page"),
    ],
    ids=["gone", "corrupt", "changed"],
)
def test_bad_image_gives_a_notice_until_it_is_good(open_page, start_worker, studio, reply, notice):
    start_worker()
    page = open_page("/data/upload/1/b.png")
    studio.replies["/data/upload/1/b.png"] = reply
    assert notice in refused(page, 30, 20)
    studio.replies["/data/upload/1/b.png"] = Reply(body=png(), needs_token=True)
    assert page.click(30, 20).mask.any()
