"""Claims about fine-tunes with a real Redis: the count that starts one, the worker that runs it, the status."""

from __future__ import annotations

import base64
import io
import time
from pathlib import Path

import pytest

from demo.scenes import make_scene
from job_queue.contracts import CollectJob, FineTuneJob, TriggerJob
from job_queue.queue import JobQueue
from registry.versions import Registry
from tests.support.data_worker import DataWorker
from tests.support.label_studio_project import TOKEN, wait_for
from tests.support.submitted import region

pytestmark = pytest.mark.redis
PROJECT = 3
SMALL = {
    "OSPREY_RECONCILE_S": "100000", "OSPREY_RECONCILE_FULL_S": "100000", "OSPREY_DEVICE": "cpu",
    "OSPREY_FINETUNE_MAX_STEPS": "2", "OSPREY_FINETUNE_BATCH_SIZE": "1", "OSPREY_FINETUNE_RANK": "2",
    "OSPREY_FINETUNE_GATE": "off", "OMP_NUM_THREADS": "1",
}  # fmt: skip
TRAINER = "from cli.main import app; app(['worker', '--queues', 'train'])"


def test_enough_corrections_become_a_candidate(redis_server, label_studio, tmp_path: Path) -> None:
    """A fine-tune starts when enough corrections are new, and the same corrections do not start a second one."""
    common = {**SMALL, "OSPREY_REGISTRY": str(tmp_path / "registry"), "OSPREY_EXPORTS": str(tmp_path / "exports")}
    data = DataWorker(redis_server.url, label_studio.url, TOKEN, tmp_path, OSPREY_FINETUNE_AFTER="4", **common)
    trainer = DataWorker(redis_server.url, label_studio.url, TOKEN, tmp_path, start=TRAINER, **common)
    queue = JobQueue(redis_server.url)
    try:
        data.wait_until_ready()
        trainer.wait_until_ready(queue="train")
        for task, seed in enumerate((70, 71), start=1):
            annotate(label_studio, queue, task, seed)
            expected = 3 * task
            wait_for(lambda expected=expected: stored(data) == expected)
            queue.submit(TriggerJob())
            if task == 1:
                time.sleep(1.0)
                assert queue.finetune_progress() is None
        wait_for(lambda: (found := queue.finetune_progress()) is not None and found.outcome, 120)
        found = queue.finetune_progress()
        assert found is not None
        assert found.outcome == "v1 was not evaluated", trainer.log_path.read_text()
        (version,) = Registry(tmp_path / "registry").versions()
        assert version.config["project"] == PROJECT
        queue.submit(TriggerJob(at_any_count=True))
        queue.submit(FineTuneJob(PROJECT, "by hand"))
        wait_for(lambda: idle(queue), 60)
        assert len(Registry(tmp_path / "registry").versions()) == 1
    finally:
        data.kill()
        trainer.kill()


def test_corrections_arrive_during_a_fine_tune(redis_server, label_studio, tmp_path: Path) -> None:
    """Corrections are stored while another process trains; those that arrive meanwhile count for the next fine-tune."""
    common = {**SMALL, "OSPREY_REGISTRY": str(tmp_path / "registry"), "OSPREY_EXPORTS": str(tmp_path / "exports")}
    data = DataWorker(redis_server.url, label_studio.url, TOKEN, tmp_path, OSPREY_FINETUNE_AFTER="1", **common)
    long = {**common, "OSPREY_FINETUNE_MAX_STEPS": "20"}
    trainer = DataWorker(redis_server.url, label_studio.url, TOKEN, tmp_path, start=TRAINER, **long)
    queue = JobQueue(redis_server.url)
    try:
        data.wait_until_ready()
        trainer.wait_until_ready(queue="train")
        annotate(label_studio, queue, 1, 70)
        annotate(label_studio, queue, 2, 71)
        wait_for(lambda: stored(data) == 6)
        queue.submit(FineTuneJob(PROJECT, "by hand"))
        wait_for(lambda: (found := queue.finetune_progress()) and (found.what == "training" or found.outcome), 100)
        started = queue.finetune_progress()
        assert started is not None
        assert not started.outcome, trainer.log_path.read_text()
        annotate(label_studio, queue, 3, 72)
        wait_for(lambda: stored(data) == 9)
        during = queue.finetune_progress()
        assert during is not None
        assert not during.outcome
        wait_for(lambda: (found := queue.finetune_progress()) is not None and found.outcome, 120)
        queue.submit(TriggerJob())
        wait_for(lambda: len(Registry(tmp_path / "registry").versions()) == 2, 120)
        trained_on = [version.data_version for version in Registry(tmp_path / "registry").versions()]
        assert len(set(trained_on)) == 2
    finally:
        data.kill()
        trainer.kill()


def annotate(label_studio, queue: JobQueue, task: int, seed: int) -> None:
    """Submit three objects of a scene, each with a corrected category."""
    scene = make_scene(seed, (256, 192))
    buffer = io.BytesIO()
    scene.image.save(buffer, "PNG")
    label_studio.add_task(task, url="data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode())
    result = [
        item
        for idx, thing in enumerate(scene.objects[:3])
        for item in region(
            f"r{task}-{idx}", {"category": ["thing"]}, suggestion={"category": [thing.category]}, mask=thing.mask
        )
    ]
    hook = label_studio.annotate(task, result)
    queue.submit(CollectJob(PROJECT, (task,), (hook["annotation"]["id"],), hook["annotation"]["updated_at"]))


def stored(worker: DataWorker) -> int:
    """Return the number of corrected regions in the store."""
    from learning.corrections.store import Store

    with Store.open(worker.database_url) as store:
        return store.counts(PROJECT).corrected_regions


def idle(queue: JobQueue) -> bool:
    """Return whether no job of the queues `data` and `train` waits or runs."""
    health = queue.health()
    waiting = sum(health.queues[name].depth + health.queues[name].background_depth for name in ("data", "train"))
    return not waiting and all(beat.state == "idle" for beat in health.workers)
