"""Claims about describe jobs that run together, in a real worker process on a real Redis.

The fake engine answers one question of every job of the best priority per step of 0.2 s, as a real one decodes them.
"""

from __future__ import annotations

import base64
import io
import time

import numpy as np
import pytest
from PIL import Image
from rq.results import Result

from job_queue.contracts import DescribeJob, ImageRef, PromptPoint, Question, RegionQuery, SegmentJob
from job_queue.errors import ImageCorrupt, JobFailed, JobTimedOut
from job_queue.mask_codec import encode_mask
from job_queue.queue import JobQueue
from job_queue.settings import QueueSettings
from tests.support.worker_process import WorkerProcess

pytestmark = pytest.mark.redis

WH = (64, 48)
STEP_S = 0.2


def image_ref(url: str = "") -> ImageRef:
    buffer = io.BytesIO()
    Image.new("RGB", WH, "red").save(buffer, "PNG")
    return ImageRef(url or "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode(), task_id=3)


def asking(num_questions: int, name: str, *, text: str = "What is {region}?", url: str = "") -> DescribeJob:
    """Make a job of so many questions that no other job of the test has asked."""
    mask = np.zeros((48, 64), np.bool_)
    mask[10:20, 10:20] = True
    questions = tuple(Question(field=f"{name} {number}", text=text) for number in range(num_questions))
    return DescribeJob(image_ref(url), WH, (RegionQuery("r1", (encode_mask(mask),), questions),))


@pytest.fixture
def worker(redis_server, tmp_path):
    """Start a worker of both queues; `worker.again` starts more."""
    started = []

    def start() -> WorkerProcess:
        process = WorkerProcess(redis_server.url, tmp_path, describe_delay_s=STEP_S)
        started.append(process)
        process.wait_until_ready()
        return process

    first = start()
    first.again = start  # type: ignore[attr-defined]
    yield first
    for process in started:
        if process.process.poll() is None:
            process.kill()


@pytest.fixture
def queue(redis_server) -> JobQueue:
    return JobQueue(redis_server.url)


def under_way(queue: JobQueue, job: DescribeJob, **how) -> str:
    """Submit a job and wait for its first answer."""
    job_id = queue.submit(job, **how)
    deadline = time.monotonic() + 10
    while not queue.partial_describe(job_id):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return job_id


def test_a_click_joins_the_one_that_runs(worker, queue, redis_client):
    """A short job that comes second is answered first; both are finished by RQ's rules, with a result that expires."""
    long_id = under_way(queue, asking(12, "long"))
    short_id = queue.submit(asking(1, "short"))
    assert len(queue.wait_describe(short_id, 6 * STEP_S).answers) == 1
    with pytest.raises(JobTimedOut, match="started"):
        queue.wait_describe(long_id, 0)
    assert len(queue.wait_describe(long_id, 10).answers) == 12
    for job_id in (long_id, short_id):
        assert redis_client.hget(f"rq:job:{job_id}", "status") == b"finished"
        assert 3000 < redis_client.ttl(Result.get_key(job_id)) <= 3600
        assert 3000 < redis_client.ttl(f"rq:job:{job_id}") <= 3600
    assert redis_client.zcard("rq:wip:osprey-describe") == 0  # no lease is left


def test_bulk_waits_at_every_token(worker, queue):
    """While a click is answered, a bulk job makes no progress; then it continues and completes."""
    bulk_id = under_way(queue, asking(15, "bulk"), bulk=True)
    click_id = queue.submit(asking(5, "click"))
    while not queue.partial_describe(click_id):
        time.sleep(0.01)
    before = len(queue.partial_describe(bulk_id))
    queue.wait_describe(click_id, 10)
    assert len(queue.partial_describe(bulk_id)) <= before + 1
    assert len(queue.wait_describe(bulk_id, 10).answers) == 15


def test_a_mask_is_found_between_two_tokens(worker, queue):
    """A worker of both queues answers a click for a mask while it describes."""
    described_id = under_way(queue, asking(15, "long"))
    click = SegmentJob(image_ref(), WH, (PromptPoint(30.0, 20.0),))
    assert queue.wait_segment(queue.submit(click), 8 * STEP_S).candidates
    with pytest.raises(JobTimedOut, match="started"):
        queue.wait_describe(described_id, 0)
    assert len(queue.wait_describe(described_id, 10).answers) == 15


def test_what_goes_wrong_in_one_harms_no_other(worker, queue):
    """An unanswerable question, a broken image and a failed step are each reported only to their own job."""
    long_id = under_way(queue, asking(12, "long"))
    bad_id = queue.submit(asking(2, "bad", text="fail"))
    broken_id = queue.submit(asking(2, "broken", url="data:image/png;base64,AAAA"))
    with pytest.raises(JobFailed, match="no such question"):
        queue.wait_describe(bad_id, 5)
    with pytest.raises(ImageCorrupt):
        queue.wait_describe(broken_id, 5)
    exploding_id = queue.submit(asking(1, "exploding", text="explode"))
    with pytest.raises(JobFailed, match="out of memory"):
        queue.wait_describe(exploding_id, 10)
    assert len(queue.wait_describe(long_id, 10).answers) == 12
    assert len(queue.wait_describe(queue.submit(asking(1, "after")), 5).answers) == 1


def test_each_job_has_its_own_time_limit(worker, queue, redis_server):
    """A job that joined and takes too long fails alone; the job that it joined continues."""
    long_id = under_way(queue, asking(14, "long"))
    hasty = JobQueue(redis_server.url, QueueSettings(describe_timeout_s=1))
    late_id = hasty.submit(asking(20, "late"))
    with pytest.raises(JobFailed, match="longer than 1 s"):
        hasty.wait_describe(late_id, 5)
    assert len(queue.wait_describe(long_id, 10).answers) == 14


def test_a_stopped_worker_answers_what_it_took(worker, queue):
    """After SIGTERM in the middle both taken jobs are answered; later ones are left to other workers."""
    long_id = under_way(queue, asking(10, "long"))
    short_id = queue.submit(asking(5, "short"))
    while not queue.partial_describe(short_id):
        time.sleep(0.01)
    worker.process.terminate()
    time.sleep(STEP_S)
    assert worker.stop() == 0
    assert len(queue.wait_describe(long_id, 0).answers) == 10
    assert len(queue.wait_describe(short_id, 0).answers) == 5


def test_a_killed_worker_loses_none_of_them(worker, queue, redis_client):
    """After SIGKILL with two jobs in the engine, the next worker answers both, each from the start."""
    jobs = [asking(10, "long"), asking(10, "short")]
    ids = [under_way(queue, job) for job in jobs]
    worker.kill()
    worker.again()
    deadline = time.monotonic() + 20
    for job, job_id in zip(jobs, ids, strict=True):
        while True:
            assert queue.submit(job) == job_id
            try:
                assert len(queue.wait_describe(job_id, 1).answers) == 10
                break
            except JobTimedOut:
                assert time.monotonic() < deadline
