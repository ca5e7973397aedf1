"""Claims about looking ahead: the request to Label Studio, and the images that its answer leads to."""

import json
import urllib.parse

import pytest

from job_queue.contracts import ImageRef, LookAheadJob
from job_queue.errors import LabelStudioFailed
from job_queue.heartbeat import WorkerBeat, write_beat
from job_queue.queue import JobQueue
from tests.support.fake_label_studio import PERSONAL_ACCESS_TOKEN, FakeLabelStudio, Reply
from tests.support.fake_models import FakeDescriber, FakeSegmenter
from worker import jobs
from worker.current_runtime import install
from worker.images.resolver import ImageResolver
from worker.label_studio.next_tasks import next_images
from worker.runtime import Loaders, ModelRuntime
from worker.settings import Settings

JOB = LookAheadJob(project_id=5, task_id=7, image_key="image", count=2)
TASKS = [
    {"id": 8, "data": {"image": "/data/upload/5/a.png"}},
    {"id": 9, "data": {"image": "/data/upload/5/b.png"}},
]


@pytest.fixture
def label_studio():
    server = FakeLabelStudio()
    yield server
    server.close()


def settings_of(server, tmp_path, token=PERSONAL_ACCESS_TOKEN):
    return Settings(label_studio_url=server.url, label_studio_token=token, cache_dir=tmp_path, device="cpu")


@pytest.fixture
def images(label_studio, tmp_path):
    resolver = ImageResolver(settings_of(label_studio, tmp_path))
    yield resolver
    resolver.close()


def answering(server, reply):
    """Answer every list of tasks with `reply`."""

    class Any(dict):
        def get(self, path, default):
            return reply if path.startswith("/api/tasks?") else default

    server.replies = Any()


def test_the_next_untouched_tasks_are_asked_for(label_studio, images):
    """One request, with the project, the task before and the number wanted; the answer is image references."""
    answering(label_studio, Reply(body=json.dumps({"tasks": TASKS, "total": 40}).encode(), needs_token=True))
    assert next_images(images.label_studio, JOB) == [
        ImageRef("/data/upload/5/a.png", 8, 5),
        ImageRef("/data/upload/5/b.png", 9, 5),
    ]
    (path,) = [path for path, _ in label_studio.seen]
    asked = dict(urllib.parse.parse_qsl(path.partition("?")[2]))
    assert (asked["project"], asked["page_size"]) == ("5", "2")
    assert [item["value"] for item in json.loads(asked["query"])["filters"]["items"]] == [7, 0]


def test_an_ended_access_token_is_exchanged(label_studio, images):
    """An access token that ended between two jobs is replaced, and the second job gets its answer."""
    answering(label_studio, Reply(body=b'{"tasks": []}', needs_token=True))
    next_images(images.label_studio, JOB)
    label_studio.valid_access = "another"
    assert next_images(images.label_studio, JOB) == []
    assert label_studio.exchanges == 2


def test_tasks_without_an_image_are_left_out(label_studio, images):
    """A task whose data has no text under the image key leads to no reference."""
    tasks = [{"id": 8, "data": {"text": "x"}}, TASKS[1]]
    answering(label_studio, Reply(body=json.dumps({"tasks": tasks}).encode()))
    assert [image.task_id for image in next_images(images.label_studio, JOB)] == [9]


@pytest.mark.parametrize(
    "reply", [Reply(404, b"no"), Reply(body=b"<html>"), Reply(body=b'{"a": 1}'), Reply(body=b'{"tasks": [3]}')]
)
def test_other_answers_are_named(label_studio, images, reply):
    """An error status, HTML and JSON without tasks are errors that name Label Studio."""
    answering(label_studio, reply)
    with pytest.raises(LabelStudioFailed, match="Label Studio"):
        next_images(images.label_studio, JOB)


@pytest.fixture
def runtime(redis_client, label_studio, tmp_path):
    loaders = Loaders(lambda settings, device: FakeSegmenter(), lambda settings, device: FakeDescriber())
    runtime = ModelRuntime(settings_of(label_studio, tmp_path), ("masks",), redis_client, loaders)
    runtime.load_missing()
    install(runtime)
    write_beat(redis_client, WorkerBeat("w", ("masks",), 1, "h", "cpu", "idle", {"masks": "sam-fake-1"}), 10)
    yield runtime
    runtime.close()


@pytest.mark.redis
def test_the_next_task_is_warmed_first_and_none_twice(runtime, redis_client, label_studio):
    """The nearest task is first in the queue; a second job within the hour enqueues nothing."""
    answering(label_studio, Reply(body=json.dumps({"tasks": TASKS}).encode()))
    for _ in range(2):
        assert "ok" in jobs.look_ahead(JOB.to_json())
    waiting = redis_client.lrange("rq:queue:osprey-masks-background", 0, -1)
    described = [redis_client.hget(b"rq:job:" + job_id, "description") for job_id in waiting]
    assert described == [b"warm task=8", b"warm task=9"]


@pytest.mark.redis
def test_the_same_opened_task_is_looked_ahead_from_once(runtime, redis_client):
    """Opening a task again while its job waits is the same job, behind every click."""
    queue = JobQueue(redis_client)
    assert queue.submit(JOB) == queue.submit(JOB)
    assert redis_client.llen("rq:queue:osprey-masks-background") == 1
    assert redis_client.llen("rq:queue:osprey-masks") == 0


@pytest.mark.redis
def test_a_label_studio_that_refuses_costs_nothing_but_a_log_line(runtime, redis_client, label_studio, caplog):
    """A look-ahead that fails is logged, and `osprey status` shows no failure."""
    answering(label_studio, Reply(403, b"no"))
    assert "ok" in jobs.look_ahead(JOB.to_json())
    assert "no look-ahead after task_id=7" in caplog.text
    assert redis_client.exists("osprey:failures") == 0
