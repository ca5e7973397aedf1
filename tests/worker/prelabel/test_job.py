"""Claims about pre-annotation through the queue, by a real worker process on a real Redis."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

import label_config
from job_queue.contracts import PrelabelJob
from job_queue.errors import NoWorker
from job_queue.queue import JobQueue
from tests.support.fake_predictions import FakePredictions, task
from tests.support.worker_process import WorkerProcess
from worker.prelabel.runs import RunState, read_run

pytestmark = pytest.mark.redis

CONFIG = Path(label_config.__file__).with_name("bitmask.xml").read_text()


@pytest.fixture
def server() -> Iterator[FakePredictions]:
    with closing(FakePredictions(CONFIG, [task(1), task(2, "data:image/png;base64,AAAA"), task(3)])) as fake:
        yield fake


@pytest.fixture
def start_worker(redis_server, server, tmp_path):
    started = []

    def start(describe_delay_s: float = 0.0) -> WorkerProcess:
        environ = {"OSPREY_LABEL_STUDIO_URL": server.url, "OSPREY_LABEL_STUDIO_TOKEN": "legacy"}
        process = WorkerProcess(
            redis_server.url, tmp_path, queues="prelabel", describe_delay_s=describe_delay_s, environ=environ
        )
        started.append(process)
        process.wait_until_ready()
        return process

    yield start
    for process in started:
        if process.process.poll() is None:
            process.kill()


def ended(redis_client, run_id: str, timeout_s: float) -> RunState:
    """Wait for the end of a run and return its state."""
    deadline = time.monotonic() + timeout_s
    while not (state := read_run(redis_client, run_id)).is_ended:
        assert time.monotonic() < deadline, state
        time.sleep(0.05)
    return state


def test_a_worker_does_what_the_command_does(server, start_worker, redis_server, redis_client):
    """Predictions are pushed, a broken image is reported, and the second run has nothing to do."""
    start_worker()
    queue = JobQueue(redis_server.url)
    queue.submit(PrelabelJob(1, "first"))
    state = ended(redis_client, "first", 10)
    assert (state.open, state.pushed, state.skipped, state.error) == (3, 2, 0, None)
    assert [failure.task_id for failure in state.failures] == [2]
    assert queue.recent_failures()[0].task_id == 2
    assert sorted(one["task"] for one in server.predictions) == [1, 3]
    queue.submit(PrelabelJob(1, "second", task_ids=(1, 3)))
    state = ended(redis_client, "second", 10)
    assert (state.pushed, state.skipped) == (0, 2)


def test_a_long_run_is_many_jobs_and_a_stopped_worker_leaves_the_rest(server, start_worker, redis_server, redis_client):
    """A stopped worker pushes what it has; the next one continues, and nothing is done twice."""
    server.tasks = [task(number) for number in range(1, 9)]
    worker = start_worker(describe_delay_s=0.16)  # a task in about 2.5 s, a job in about 10 s
    JobQueue(redis_server.url).submit(PrelabelJob(1, "long"))
    deadline = time.monotonic() + 20
    while not read_run(redis_client, "long").annotated:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert worker.stop() == 0
    assert 0 < len(server.predictions) < 8
    start_worker()
    assert ended(redis_client, "long", 20).pushed == 8
    assert sorted(one["task"] for one in server.predictions) == list(range(1, 9))


def test_a_label_studio_that_is_away_ends_the_run(server, start_worker, redis_server, redis_client):
    """The run ends with the reason instead of trying again and again."""
    start_worker()
    server.is_down = True
    JobQueue(redis_server.url).submit(PrelabelJob(1, "down"))
    assert "503" in (ended(redis_client, "down", 10).error or "")


def test_a_queue_without_workers_is_an_error(redis_server):
    """Without a worker of the queue nothing is enqueued."""
    with pytest.raises(NoWorker, match="--queues prelabel"):
        JobQueue(redis_server.url).submit(PrelabelJob(1, "lonely"))
