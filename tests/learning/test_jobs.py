"""Claims about the `data` worker with a real Redis: whatever is killed, no correction is lost or stored twice."""

from __future__ import annotations

import time

import pytest

from backend.webhook import hint_of
from job_queue.contracts import ExportJob
from job_queue.errors import QueueUnavailable
from job_queue.queue import JobQueue
from learning.corrections.store import Store
from learning.export.version import read_export
from tests.support.data_worker import DataWorker
from tests.support.label_studio_project import TOKEN, wait_for
from tests.support.submitted import CAR, region

pytestmark = pytest.mark.redis
PROJECT = 3
NEVER = {"OSPREY_RECONCILE_S": "100000", "OSPREY_RECONCILE_FULL_S": "100000"}
OFTEN = {"OSPREY_RECONCILE_S": "1", "OSPREY_RECONCILE_FULL_S": "2"}


@pytest.fixture
def start(label_studio, tmp_path):
    started = []

    def start_worker(redis_url: str, **environ: str) -> DataWorker:
        worker = DataWorker(redis_url, label_studio.url, TOKEN, tmp_path, **environ)
        started.append(worker)
        worker.wait_until_ready()
        return worker

    yield start_worker
    for worker in started:
        if worker.process.poll() is None:
            worker.kill()


def car(number: int = 1, category: str = "car"):
    return region(f"car{number:05d}", {**CAR, "category": [category]}, suggestion={"category": ["truck"]})


def submit(redis_url: str, hook) -> None:
    JobQueue(redis_url).submit(hint_of(hook["action"], hook))


def categories(worker: DataWorker) -> list[tuple]:
    with Store.open(worker.database_url) as store:
        return [(each.region.task, each.region.texts["category"][0]) for each in store.regions(PROJECT)]


def test_hint_arrives_in_the_store_without_torch(redis_server, label_studio, start):
    """A webhook becomes a record in a process that cannot import torch, uses little memory and stops at SIGTERM."""
    worker = start(redis_server.url, **NEVER)
    label_studio.add_task(1)
    submit(redis_server.url, label_studio.annotate(1, car()))
    wait_for(lambda: categories(worker) == [(1, "car")])
    assert worker.memory_bytes < 400e6
    assert worker.stop() == 0


def test_hints_sent_before_any_worker_runs_wait_for_it(redis_server, label_studio, start):
    """After three changes of an annotation without a running worker, the last one is stored."""
    label_studio.add_task(1)
    hooks = [label_studio.annotate(1, car())]
    hooks += [label_studio.update(1, 1, car(category=word)) for word in ("van", "bus")]
    for hook in (*hooks, *hooks):
        submit(redis_server.url, hook)
    worker = start(redis_server.url, **NEVER)
    wait_for(lambda: categories(worker) == [(1, "bus")])


def test_redis_restart_loses_hints_but_no_correction(own_redis_server, label_studio, start):
    """After Redis has lost its data and was down, the worker reconnects, and the schedule finds the missing changes."""
    worker = start(own_redis_server.url, **OFTEN)
    for task_id in (1, 2, 3):
        label_studio.add_task(task_id)
    submit(own_redis_server.url, label_studio.annotate(1, car()))
    own_redis_server.stop()
    with pytest.raises(QueueUnavailable):
        submit(own_redis_server.url, label_studio.annotate(2, car()))
    time.sleep(0.5)
    own_redis_server.start()
    label_studio.annotate(3, car())
    wait_for(lambda: categories(worker) == [(1, "car"), (2, "car"), (3, "car")], 30)
    label_studio.delete_task(2)  # and its webhook is lost
    wait_for(lambda: categories(worker) == [(1, "car"), (3, "car")], 30)
    assert worker.process.poll() is None


def test_worker_killed_in_a_job_leaves_nothing_half_done(redis_server, label_studio, start, tmp_path):
    """After SIGKILL during a request to Label Studio, the next worker stores every task exactly once."""
    for task_id in range(1, 30):
        label_studio.add_task(task_id)
        label_studio.annotate(task_id, car())
    worker = None

    def kill(task_id: int) -> None:
        if task_id == 12:
            worker.process.kill()

    label_studio.before_task = kill
    worker = DataWorker(redis_server.url, label_studio.url, TOKEN, tmp_path, **NEVER)
    worker.process.wait(timeout=40)
    label_studio.before_task = lambda _: None
    second = start(redis_server.url, OSPREY_DATABASE_URL=worker.database_url, **OFTEN)
    # The killed job counts as running until its lease is over (30 s); then RQ gives it to the next worker.
    wait_for(lambda: categories(second) == [(task_id, "car") for task_id in range(1, 30)], 80)


def test_label_studio_away_is_reported_and_made_up_for(redis_server, label_studio, start):
    """A job fails while Label Studio is down; `osprey status` shows it, and the next reconcile stores the record."""
    worker = start(redis_server.url, **OFTEN)
    label_studio.add_task(1)
    hook = label_studio.annotate(1, car())
    label_studio.down = True
    submit(redis_server.url, hook)
    queue = JobQueue(redis_server.url)
    wait_for(lambda: any("503" in failure.message for failure in queue.recent_failures()))
    label_studio.down = False
    wait_for(lambda: categories(worker) == [(1, "car")])
    assert queue.health().queues["data"].workers == 1


def test_two_workers_schedule_once(redis_server, label_studio, start, tmp_path):
    """Only one of two data workers schedules; when it ends, the other one continues."""
    first = start(redis_server.url, **OFTEN)
    second = start(redis_server.url, **OFTEN)
    label_studio.seen.clear()
    time.sleep(4)
    lists = [path for path, _ in label_studio.seen if path.startswith("/api/projects?")]
    assert 1 <= len(lists) <= 8  # one per second, and a full one every other second; two schedulers would cause twelve
    first.stop()
    label_studio.add_task(1)
    label_studio.annotate(1, car())
    wait_for(lambda: categories(second) == [(1, "car")])


def test_export_job_writes_a_version_of_the_store(redis_server, label_studio, start, tmp_path):
    """A worker without torch runs an export job; a second identical job finds the version that exists."""
    worker = start(redis_server.url, **NEVER, OSPREY_EXPORTS=str(tmp_path / "exports"))
    label_studio.add_task(1)
    submit(redis_server.url, label_studio.annotate(1, car()))
    wait_for(lambda: categories(worker) == [(1, "car")])
    JobQueue(redis_server.url).submit(ExportJob(PROJECT, with_images=False))
    pointer = tmp_path / "exports" / "3.latest"
    wait_for(pointer.exists)
    export = read_export(tmp_path / "exports" / pointer.read_text().strip())
    assert [each.region for each in export.regions] == ["car00001"]
    before = pointer.stat().st_mtime_ns
    JobQueue(redis_server.url).submit(ExportJob(PROJECT, with_images=False))
    wait_for(lambda: pointer.stat().st_mtime_ns > before)
    assert len(list((tmp_path / "exports").glob("3-*"))) == 1
