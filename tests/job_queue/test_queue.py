"""Claims about the queue's client with a real Redis: ids, reuse, limits, errors, partial answers, health."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import time

import pytest
from redis import Redis
from rq import Queue
from rq.job import Job, JobStatus
from rq.results import Result
from rq.serializers import JSONSerializer

from job_queue.contracts import DescribeJob, FieldAnswer, ImageRef, SegmentAnswer, SegmentJob, WarmJob
from job_queue.errors import (
    ImageCorrupt,
    ImageUnavailable,
    JobFailed,
    JobTimedOut,
    ModelUnavailable,
    NoWorker,
    QueueBusy,
    QueueUnavailable,
)
from job_queue.heartbeat import WorkerBeat, remove_beat, write_beat
from job_queue.job_kinds import rq_queue_name
from job_queue.partial_answers import partial_key
from job_queue.queue import JobQueue
from job_queue.settings import QueueSettings

pytestmark = pytest.mark.redis

IMAGE = ImageRef(url="/data/upload/1/a.png", task_id=7)
SEGMENT = SegmentJob(image=IMAGE, image_wh=(64, 48), box_px_xyxy=(1.0, 2.0, 30.0, 40.0))
ANSWER = SegmentAnswer(candidates=(), image_wh=(64, 48), image_sha256="ab", model_version="sam-nano-1")
BEAT = WorkerBeat(
    name="w1", queues=("masks", "describe"), pid=1, host="here", device="cpu", state="idle",
    model_versions={"masks": "sam-nano-1", "describe": "osprey-nano-1"},
)  # fmt: skip


def answer(redis: Redis, job_id: str, value: object) -> None:
    """Store a job's result as RQ's worker does."""
    job = Job.fetch(job_id, connection=redis, serializer=JSONSerializer)
    job.set_status(JobStatus.FINISHED)
    Result.create(job, Result.Type.SUCCESSFUL, ttl=60, return_value=value)


@pytest.fixture
def queue(redis_server) -> JobQueue:
    return JobQueue(redis_server.url, QueueSettings(interactive_bound=3))


def test_job_is_plain_json_with_a_string_path(queue, redis_client):
    """A job is enqueued as the path worker.jobs.segment and JSON, without pickle."""
    write_beat(redis_client, BEAT, 10)
    job_id = queue.submit(SEGMENT)
    job = Job.fetch(job_id, connection=redis_client, serializer=JSONSerializer)
    assert job.func_name == "worker.jobs.segment"
    assert SegmentJob.from_json(job.args[0]) == SEGMENT
    assert not redis_client.hget(Job.key_for(job_id), "data").startswith(b"\x80")


def test_identical_job_is_enqueued_once(queue, redis_client):
    """Submitting the same click twice enqueues one job."""
    write_beat(redis_client, BEAT, 10)
    assert queue.submit(SEGMENT) == queue.submit(SEGMENT)
    assert Queue(rq_queue_name("masks"), connection=redis_client, serializer=JSONSerializer).count == 1


def test_finished_job_is_reused_and_answered_at_once(queue, redis_client):
    write_beat(redis_client, BEAT, 10)
    job_id = queue.submit(SEGMENT)
    answer(redis_client, job_id, {"ok": ANSWER.to_json()})
    assert queue.submit(SEGMENT) == job_id
    assert queue.wait_segment(job_id, 0) == ANSWER


def test_failed_job_is_enqueued_again(queue, redis_client):
    """An error is not reused as an answer: the next identical click runs again."""
    write_beat(redis_client, BEAT, 10)
    job_id = queue.submit(SEGMENT)
    answer(redis_client, job_id, {"error": {"kind": "ImageUnavailable", "message": "404"}})
    redis_client.delete(f"rq:queue:{rq_queue_name('masks')}")
    assert queue.submit(SEGMENT) == job_id
    assert Job.fetch(job_id, connection=redis_client, serializer=JSONSerializer).get_status() == JobStatus.QUEUED
    with pytest.raises(JobTimedOut, match="queued"):
        queue.wait_segment(job_id, 0.01)


def test_job_of_a_dead_worker_is_enqueued_again(queue, redis_client):
    """A job started by a worker that has no heartbeat does not block the next identical click."""
    write_beat(redis_client, BEAT, 10)
    job_id = queue.submit(SEGMENT)
    redis_client.hset(Job.key_for(job_id), mapping={"status": "started", "worker_name": "dead"})
    redis_client.delete(f"rq:queue:{rq_queue_name('masks')}")
    assert queue.submit(SEGMENT) == job_id
    assert redis_client.llen(f"rq:queue:{rq_queue_name('masks')}") == 1


def test_another_model_version_is_another_job(queue, redis_client):
    """After a switch of the model, answers of the old model are not reused."""
    write_beat(redis_client, BEAT, 10)
    before = queue.submit(SEGMENT)
    write_beat(redis_client, dataclasses.replace(BEAT, model_versions={"masks": "sam-nano-2"}), 10)
    assert queue.submit(SEGMENT) != before


@pytest.mark.parametrize("kind", [ImageUnavailable, ImageCorrupt, ModelUnavailable])
def test_worker_errors_come_back_as_themselves(queue, redis_client, kind):
    write_beat(redis_client, BEAT, 10)
    job_id = queue.submit(SEGMENT)
    answer(redis_client, job_id, {"error": {"kind": kind.__name__, "message": "what to do"}})
    with pytest.raises(kind, match="what to do"):
        queue.wait_segment(job_id, 1)


def test_other_errors_come_back_as_job_failed_with_their_kind(queue, redis_client):
    write_beat(redis_client, BEAT, 10)
    job_id = queue.submit(SEGMENT)
    answer(redis_client, job_id, {"error": {"kind": "KeyError", "message": "'x'"}})
    with pytest.raises(JobFailed) as caught:
        queue.wait_segment(job_id, 1)
    assert caught.value.kind == "KeyError"


def test_job_that_rq_gave_up_comes_back_as_job_failed(queue, redis_client):
    write_beat(redis_client, BEAT, 10)
    job_id = queue.submit(SEGMENT)
    job = Job.fetch(job_id, connection=redis_client, serializer=JSONSerializer)
    Result.create_failure(job, 60, "Traceback ...\nrq.exceptions.AbandonedJobError: gone")
    with pytest.raises(JobFailed, match="gone") as caught:
        queue.wait_segment(job_id, 1)
    assert caught.value.kind == "rq.exceptions.AbandonedJobError"


def test_no_worker_is_said_at_once(queue, redis_client):
    with pytest.raises(NoWorker, match="osprey worker"):
        queue.submit(SEGMENT)
    write_beat(redis_client, dataclasses.replace(BEAT, queues=("masks",), model_versions={"masks": "sam-nano-1"}), 10)
    queue.submit(SEGMENT)
    with pytest.raises(NoWorker, match="'describe'"):
        queue.submit(DescribeJob(image=IMAGE, image_wh=(64, 48), regions=()))
    remove_beat(redis_client, "w1")
    with pytest.raises(NoWorker):
        queue.submit(dataclasses.replace(SEGMENT, image_wh=(65, 48)))


def test_model_that_does_not_load_is_said_at_once(queue, redis_client):
    """If a worker's model does not load, the client raises its reason without enqueuing a job."""
    broken = dataclasses.replace(BEAT, model_versions={}, problem="no checkpoint at /models/x", state="broken")
    write_beat(redis_client, broken, 10)
    with pytest.raises(ModelUnavailable, match="no checkpoint at /models/x"):
        queue.submit(SEGMENT)


def test_worker_that_still_loads_is_no_worker_yet(queue, redis_client):
    write_beat(redis_client, dataclasses.replace(BEAT, model_versions={}, state="starting"), 10)
    with pytest.raises(NoWorker, match="still loading"):
        queue.submit(SEGMENT)
    assert queue.health().queues["masks"].workers == 0


def test_unknown_model_version_is_said_at_once(queue, redis_client):
    write_beat(redis_client, BEAT, 10)
    with pytest.raises(ModelUnavailable, match=r"'sam-huge' is not served .* sam-nano-1"):
        queue.submit(dataclasses.replace(SEGMENT, model_version="sam-huge"))


def test_warm_goes_to_every_served_queue_behind_the_clicks(queue, redis_client):
    write_beat(redis_client, BEAT, 10)
    queue.submit(WarmJob(image=IMAGE))
    for name in ("masks", "describe"):
        assert redis_client.llen(f"rq:queue:{rq_queue_name(name)}") == 0
        assert redis_client.llen(f"rq:queue:{rq_queue_name(name, background=True)}") == 1


def test_full_queue_is_busy(queue, redis_client):
    write_beat(redis_client, BEAT, 10)
    for x_px in range(3):
        queue.submit(dataclasses.replace(SEGMENT, box_px_xyxy=(float(x_px), 0.0, 9.0, 9.0)))
    with pytest.raises(QueueBusy) as caught:
        queue.submit(dataclasses.replace(SEGMENT, box_px_xyxy=(8.0, 0.0, 9.0, 9.0)))
    assert caught.value.retry_after_s > 0


def test_wait_ends_at_its_deadline(queue, redis_client):
    write_beat(redis_client, BEAT, 10)
    job_id = queue.submit(SEGMENT)
    start = time.monotonic()
    with pytest.raises(JobTimedOut):
        queue.wait_segment(job_id, 0.5)
    assert 0.45 < time.monotonic() - start < 1.0


def test_forgotten_job_is_an_error(queue):
    """Waiting for a job that expired, or that a restarted Redis lost, ends with an error."""
    with pytest.raises(JobFailed, match="try again") as caught:
        queue.wait_describe("0" * 40, 0)
    assert caught.value.kind == "JobLost"


def test_partial_answers_come_in_the_order_of_the_questions(queue, redis_client):
    late = FieldAnswer(region_id="r", question_idx=10, field="short_description", values=("a cup",), confidence=0.5)
    early = FieldAnswer(region_id="r", question_idx=2, field="category", values=("cup",), confidence=0.9)
    redis_client.hset(partial_key("j"), mapping={"00000:00010": json.dumps(late.to_json())})
    redis_client.hset(partial_key("j"), mapping={"00000:00002": json.dumps(early.to_json())})
    assert queue.partial_describe("j") == (early, late)


def test_health_tells_workers_models_and_depths(queue, redis_client):
    write_beat(redis_client, BEAT, 10)
    queue.submit(SEGMENT)
    health = queue.health()
    assert health.redis_ok
    assert health.queues["masks"].workers == 1
    assert health.queues["masks"].depth == 1
    assert health.queues["masks"].model_versions == ("sam-nano-1",)
    assert health.queues["masks"].last_beat_age_s < 1


def test_failures_are_kept_newest_first(queue):
    queue.record_failure("first", task_id=1)
    queue.record_failure("second", task_id=2, where="worker")
    assert [failure.message for failure in queue.recent_failures()] == ["second", "first"]


def test_dead_redis_is_named_within_a_second(own_redis_server):
    """If Redis refuses the connection, every call raises QueueUnavailable, and health contains the reason."""
    queue = JobQueue(own_redis_server.url)
    assert queue.health().redis_ok
    own_redis_server.stop()
    start = time.monotonic()
    with pytest.raises(QueueUnavailable, match="OSPREY_REDIS_URL"):
        queue.submit(SEGMENT)
    with pytest.raises(QueueUnavailable):
        queue.wait_segment("x", 5)
    assert not queue.health().redis_ok
    assert time.monotonic() - start < 1
    own_redis_server.start()
    assert queue.health().redis_ok


def test_hanging_redis_is_named_within_a_second(own_redis_server):
    """If Redis accepts the connection and never answers, a call ends after one socket timeout."""
    queue = JobQueue(own_redis_server.url)
    assert queue.health().redis_ok
    os.kill(own_redis_server.process.pid, signal.SIGSTOP)
    try:
        start = time.monotonic()
        with pytest.raises(QueueUnavailable):
            queue.submit(SEGMENT)
        assert time.monotonic() - start < 1.5
    finally:
        os.kill(own_redis_server.process.pid, signal.SIGCONT)
