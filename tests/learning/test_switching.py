"""Claims about switching models with a real worker process, real Redis and two small checkpoints."""

from __future__ import annotations

import base64
import io
import subprocess
import threading
import time

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from job_queue.contracts import DescribeJob, ImageRef, Question, RegionQuery
from job_queue.mask_codec import encode_mask
from job_queue.queue import JobQueue
from registry.versions import Registry
from tests.support.worker_process import CHECKOUT, RealWorkerProcess

pytestmark = pytest.mark.redis

NANO = CHECKOUT / "demo" / "checkpoints" / "osprey-nano"
WH = (64, 48)


@pytest.fixture
def registry(tmp_path) -> Registry:
    """Return a registry: v1 is osprey-nano, v2 the same with slightly changed output projections."""
    changed = tmp_path / "changed"
    changed.mkdir()
    for file in NANO.iterdir():
        (changed / file.name).write_bytes(file.read_bytes())
    weights = load_file(NANO / "model.safetensors")
    weights["lm_head.weight"] = weights["lm_head.weight"] + torch.tensor(0.01, dtype=weights["lm_head.weight"].dtype)
    save_file(weights, changed / "model.safetensors", metadata={"format": "pt"})
    registry = Registry(tmp_path / "registry")
    registry.add(NANO, "checkpoint")
    registry.add(changed, "checkpoint")
    return registry


def question(idx: int) -> DescribeJob:
    """Return a job for this number, different from all others, so that no cache answers it."""
    buffer = io.BytesIO()
    Image.new("RGB", WH, (idx % 256, idx // 256, 90)).save(buffer, "PNG")
    image = ImageRef("data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode(), task_id=idx)
    mask = np.zeros((WH[1], WH[0]), np.bool_)
    mask[10:30, 10:40] = True
    asked = Question("category", "What is {region}?", max_new_tokens=4)
    return DescribeJob(image, WH, (RegionQuery("r", (encode_mask(mask),), (asked,)),))


class Flow:
    """Sends jobs one after the other from a thread and records the versions that answered."""

    def __init__(self, queue: JobQueue) -> None:
        self.versions: list[str] = []
        self.failures: list[Exception] = []
        self._queue, self._ended = queue, threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Flow:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def wait_for(self, num_more: int) -> None:
        target, deadline = len(self.versions) + num_more, time.monotonic() + 60
        while len(self.versions) < target:
            assert time.monotonic() < deadline, self.failures
            time.sleep(0.01)

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                job_id = self._queue.submit(question(len(self.versions)))
                self.versions.append(self._queue.wait_describe(job_id, 60).model_version)
            except Exception as error:  # any failure is a dropped job
                self.failures.append(error)
                return


def test_switch_and_rollback_while_jobs_flow(redis_server, tmp_path, registry):
    """No job fails, the version changes once per promotion or rollback, and after `rollback` the old one answers."""
    registry.promote("v1")
    queue = JobQueue(redis_server.url)
    environ = {"OSPREY_REGISTRY": str(registry.folder), "OSPREY_MODEL": str(NANO), "OSPREY_THREADS": "1"}
    worker = RealWorkerProcess(redis_server.url, tmp_path, "describe", environ)
    try:
        worker.wait_until_ready(90)
        v1, v2 = (registry.version(name).model_version for name in ("v1", "v2"))
        with Flow(queue) as flow:
            flow.wait_for(5)
            registry.promote("v2")
            promoted = len(flow.versions)
            flow.wait_for(6)
            registry.rollback()
            rolled_back = len(flow.versions)
            flow.wait_for(6)
        assert not flow.failures
        changes = [idx for idx in range(1, len(flow.versions)) if flow.versions[idx] != flow.versions[idx - 1]]
        assert [flow.versions[0], *(flow.versions[idx] for idx in changes)] == [v1, v2, v1]
        # The old version may still answer the job that ran at the moment of the change, but not the next one.
        assert changes[0] - promoted <= 1
        assert changes[1] - rolled_back <= 1
        # A click answered before the rollback is answered again, not with the cached answer of the newer version.
        repeated = queue.submit(question(promoted + 2))
        assert queue.wait_describe(repeated, 60).model_version == v1
        assert worker.process.poll() is None
    finally:
        if worker.process.poll() is None:
            worker.stop()


def test_broken_version_is_seen_in_the_status_and_the_command_rolls_back(redis_server, tmp_path, registry):
    """The old version keeps serving, `osprey status` has the reason, and one command rolls back."""
    registry.promote("v1")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text("{}")
    registry.add(broken, "checkpoint", name="broken")
    queue = JobQueue(redis_server.url)
    environ = {"OSPREY_REGISTRY": str(registry.folder), "OSPREY_MODEL": str(NANO), "OSPREY_THREADS": "1"}
    worker = RealWorkerProcess(redis_server.url, tmp_path, "describe", environ)
    try:
        worker.wait_until_ready(90)
        v1 = registry.version("v1").model_version
        registry.promote("broken")
        assert queue.wait_describe(queue.submit(question(1)), 60).model_version == v1
        status = worker.command("status").stdout
        assert "the champion does not load, v1 still serves" in " ".join(status.split())
        done: subprocess.CompletedProcess[str] = worker.command("rollback", "--why", "it does not load")
        assert done.returncode == 0, done.stderr
        assert registry.champion_name() == "v1"
        assert registry.history()[-1].why == "it does not load"
        assert queue.wait_describe(queue.submit(question(2)), 60).model_version == v1
        assert "does not load" not in worker.command("status").stdout.partition("Last failures")[0]
    finally:
        if worker.process.poll() is None:
            worker.stop()
