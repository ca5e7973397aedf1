"""Claims about a real worker process on a real Redis: answers, late answers, kills, restarts, clean stops."""

from __future__ import annotations

import base64
import dataclasses
import io
import time

import numpy as np
import pytest
from PIL import Image
from rq import Queue
from rq.serializers import JSONSerializer

from job_queue.contracts import DescribeJob, ImageRef, PromptPoint, Question, RegionQuery, SegmentJob, WarmJob
from job_queue.errors import ImageCorrupt, JobTimedOut, NoWorker, UnknownJob
from job_queue.job_kinds import rq_queue_name
from job_queue.mask_codec import decode_mask, encode_mask
from job_queue.queue import JobQueue
from tests.support.worker_process import WorkerProcess

pytestmark = pytest.mark.redis

WH = (64, 48)


def image_ref(shade: int = 0) -> ImageRef:
    buffer = io.BytesIO()
    Image.new("RGB", WH, (shade, 0, 0)).save(buffer, "PNG")
    return ImageRef(url="data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode(), task_id=3)


def click(x_px: float, **changes) -> SegmentJob:
    job = SegmentJob(image=image_ref(), image_wh=WH, points=(PromptPoint(x_px, 20.0),))
    return dataclasses.replace(job, **changes)


def questions(*fields: str) -> DescribeJob:
    mask = np.zeros((48, 64), np.bool_)
    mask[10:20, 10:20] = True
    asked = tuple(Question(field=field, text="What is {region}?") for field in fields)
    return DescribeJob(
        image=image_ref(), image_wh=WH, regions=(RegionQuery("r1", (encode_mask(mask),), asked),)
    )  # fmt: skip


@pytest.fixture
def start_worker(tmp_path):
    started = []

    def start(redis_url: str, **options) -> WorkerProcess:
        worker = WorkerProcess(redis_url, tmp_path, **options)
        started.append(worker)
        worker.wait_until_ready()
        return worker

    yield start
    for worker in started:
        if worker.process.poll() is None:
            worker.kill()


def test_click_and_questions_are_answered(redis_server, start_worker):
    """One process answers masks and every field; each step is timed; a warm job changes nothing."""
    start_worker(redis_server.url)
    queue = JobQueue(redis_server.url)
    queue.submit(WarmJob(image=image_ref()))
    answer = queue.wait_segment(queue.submit(click(30.0)), 5)
    assert [candidate.area_px for candidate in answer.candidates] == [49, 197, 797]
    assert decode_mask(answer.candidates[0].mask)[20, 30]
    assert set(answer.timings_ms) == {"queue", "resolve", "embed", "logits", "masks", "encode", "model_cpu"}
    job_id = queue.submit(questions("category", "color"))
    described = queue.wait_describe(job_id, 5)
    assert [one.values for one in described.answers] == [("category What is {region}?",), ("color What is {region}?",)]
    assert queue.partial_describe(job_id) == described.answers


def test_further_click_refines_with_the_logits_of_the_one_before(redis_server, start_worker):
    """Logits of another worker process are found in Redis."""
    first = start_worker(redis_server.url, queues="masks")
    queue = JobQueue(redis_server.url)
    answer = queue.wait_segment(queue.submit(click(30.0)), 5)
    first.stop()
    start_worker(redis_server.url, queues="masks")
    refined = queue.wait_segment(queue.submit(click(30.0, previous_logits_id=answer.candidates[0].logits_id)), 5)
    assert len(refined.candidates) == 1


def test_errors_of_a_job_reach_the_caller_and_the_status(redis_server, start_worker):
    start_worker(redis_server.url, queues="masks")
    queue = JobQueue(redis_server.url)
    job_id = queue.submit(click(30.0, image=ImageRef(url="data:image/png;base64,aGVsbG8=", task_id=9)))
    with pytest.raises(ImageCorrupt, match="replace the file"):
        queue.wait_segment(job_id, 5)
    failure = queue.recent_failures()[0]
    assert failure.task_id == 9
    assert failure.where == "worker segment"


def test_late_answers_are_readable_one_by_one_and_kept(redis_server, start_worker):
    """After the deadline the first field is readable, the rest follows and is kept."""
    start_worker(redis_server.url, queues="describe", describe_delay_s=2.0)
    queue = JobQueue(redis_server.url)
    job_id = queue.submit(questions("category", "color"))
    started = time.monotonic()
    # However late a busy machine begins: the first answer stands alone for two seconds, and is looked for until then.
    while not (first := queue.partial_describe(job_id)):
        assert time.monotonic() - started < 60
        with pytest.raises(JobTimedOut):
            queue.wait_describe(job_id, 0.1)
    assert [answer.field for answer in first] == ["category"]
    queue.wait_describe(job_id, 60)
    assert queue.submit(questions("category", "color")) == job_id
    assert len(queue.wait_describe(job_id, 0).answers) == 2


def test_killed_worker_is_missed_and_its_job_runs_elsewhere(redis_server, start_worker):
    """After SIGKILL in a job, the click goes to the next worker as soon as the heartbeat has expired."""
    first = start_worker(redis_server.url, queues="masks", segment_delay_s=60.0)
    queue = JobQueue(redis_server.url)
    job_id = queue.submit(click(30.0))
    with pytest.raises(JobTimedOut, match="started"):
        queue.wait_segment(job_id, 1)
    first.kill()
    start_worker(redis_server.url, queues="masks")
    deadline = time.monotonic() + 14
    while True:
        queue.submit(click(30.0))
        try:
            assert queue.wait_segment(job_id, 1).candidates
            break
        except JobTimedOut:
            assert time.monotonic() < deadline


def test_stopped_worker_finishes_its_job_and_is_gone_at_once(redis_server, start_worker):
    """After SIGTERM the running job is answered, then the queue has no worker."""
    worker = start_worker(redis_server.url, queues="masks", segment_delay_s=1.0)
    queue = JobQueue(redis_server.url)
    job_id = queue.submit(click(30.0))
    time.sleep(0.4)
    assert worker.stop() == 0
    assert queue.wait_segment(job_id, 0).candidates
    with pytest.raises(NoWorker):
        queue.submit(click(31.0))


def test_worker_survives_a_redis_restart(own_redis_server, start_worker):
    """After Redis restarts empty, the same process serves again within seconds."""
    worker = start_worker(own_redis_server.url, queues="masks")
    queue = JobQueue(own_redis_server.url)
    assert queue.wait_segment(queue.submit(click(30.0)), 5).candidates
    own_redis_server.stop()
    time.sleep(1.0)
    own_redis_server.start()
    worker.wait_until_ready()
    assert queue.wait_segment(queue.submit(click(31.0)), 10).candidates
    assert worker.process.poll() is None


def test_redis_lost_during_a_job_does_not_end_the_worker(own_redis_server, start_worker):
    worker = start_worker(own_redis_server.url, queues="masks", segment_delay_s=1.0)
    queue = JobQueue(own_redis_server.url)
    queue.submit(click(30.0))
    time.sleep(0.4)
    own_redis_server.stop()
    time.sleep(1.5)
    own_redis_server.start()
    worker.wait_until_ready()
    assert queue.wait_segment(queue.submit(click(31.0)), 10).candidates
    assert worker.stop() == 0


def test_worker_waits_for_a_redis_that_starts_later(own_redis_server, tmp_path):
    own_redis_server.stop()
    worker = WorkerProcess(own_redis_server.url, tmp_path, queues="masks")
    time.sleep(1.5)
    assert worker.process.poll() is None
    own_redis_server.start()
    worker.wait_until_ready()
    assert worker.stop() == 0


@pytest.mark.redis
def test_job_of_another_release_is_refused_by_name(redis_server, redis_client, start_worker):
    """A job path that this release does not have is not imported; the worker reports it and continues."""
    start_worker(redis_server.url, queues="masks")
    rq_queue = Queue(rq_queue_name("masks"), connection=redis_client, serializer=JSONSerializer)
    old = rq_queue.enqueue_call("os.getcwd", job_id="old-job", retry=None)
    queue = JobQueue(redis_server.url)
    with pytest.raises(UnknownJob, match=r"asks for 'os.getcwd', which this worker does not know.*same release"):
        queue.wait_segment(old.id, 10)
    assert any("UnknownJob" in failure.message for failure in queue.recent_failures())
    assert queue.wait_segment(queue.submit(click(30.0)), 10).candidates


def test_unknown_queue_is_refused(redis_server, tmp_path):
    worker = WorkerProcess(redis_server.url, tmp_path, queues="maks")
    assert worker.process.wait(timeout=20) != 0
    assert "queues must be some of masks, describe, got maks" in worker.log_path.read_text()
