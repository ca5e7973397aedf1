"""`osprey worker` and `osprey status` as a person runs them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app
from job_queue.heartbeat import WorkerBeat, write_beat
from job_queue.queue import JobQueue
from registry.sets_in_making import maker, plan

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.redis


def run(*arguments: str, redis_url: str, **told: str):
    environ = {"OSPREY_REDIS_URL": redis_url, "COLUMNS": "200", "OSPREY_LOG_LEVEL": "ERROR", **told}
    return CliRunner().invoke(app, list(arguments), env=environ)


def test_status_shows_workers_models_and_failures(redis_server, redis_client):
    """Everything served: exit 0, with model, device and the last failure."""
    versions = {"masks": "sam-nano-1", "describe": "osprey-nano-1"}
    beat = WorkerBeat("w1", ("masks", "describe"), 17, "gpubox", "cuda", "idle", versions)
    write_beat(redis_client, beat, 10)
    JobQueue(redis_server.url).record_failure("image gone (HTTP 404)", task_id=12)
    result = run("status", redis_url=redis_server.url)
    assert result.exit_code == 0, result.output
    for expected in ("sam-nano-1", "osprey-nano-1", "cuda", "17 on gpubox", "image gone (HTTP 404)", "12"):
        assert expected in result.output


def test_status_without_a_worker_says_so(redis_server):
    result = run("status", redis_url=redis_server.url)
    assert result.exit_code == 1
    assert "No worker runs." in result.output


def test_status_shows_why_a_model_does_not_load(redis_server, redis_client):
    beat = WorkerBeat("w1", ("masks",), 17, "gpubox", "cpu", "broken", {}, problem="no checkpoint at /models/x")
    write_beat(redis_client, beat, 10)
    result = run("status", redis_url=redis_server.url)
    assert "no checkpoint at /models/x" in result.output
    assert "broken" in result.output


def test_status_tells_of_sets_that_a_fine_tune_waits_for(redis_server, tmp_path):
    """While they are made, and when that failed; nothing once they are there."""
    base = tmp_path / "truth" / "base"
    environ = {"OSPREY_BASE_SET": str(base)}
    plan(base.parent)
    assert "a fine-tune waits: waiting for its turn" in run("status", redis_url=redis_server.url, **environ).output
    with pytest.raises(OSError, match="full"), maker(base.parent, 1):
        raise OSError("the disk is full")
    assert "failed: OSError: the disk is full" in run("status", redis_url=redis_server.url, **environ).output
    with maker(base.parent, 1):
        base.mkdir()
    assert "fine-tune waits" not in run("status", redis_url=redis_server.url, **environ).output


def test_status_with_redis_down_says_so(own_redis_server):
    own_redis_server.stop()
    result = run("status", redis_url=own_redis_server.url)
    assert result.exit_code == 1
    assert "Redis does not answer" in result.output


def test_worker_refuses_an_unknown_queue(redis_server):
    """In a process of its own, because a worker takes over the log and the signals of its process for good."""
    command = [sys.executable, "-m", "cli.main", "worker", "--queues", "maks"]
    environ = {**os.environ, "OSPREY_REDIS_URL": redis_server.url}
    result = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=240)
    assert result.returncode == 2
    assert "maks" in result.stderr


@pytest.mark.parametrize(
    ("host", "state", "code"), [("here", "idle", 0), ("here", "starting", 1), ("elsewhere", "idle", 1)]
)
def test_a_health_check_asks_for_a_ready_worker_of_its_own_machine(redis_server, redis_client, host, state, code):
    host = socket.gethostname() if host == "here" else host
    write_beat(redis_client, WorkerBeat("w1", ("masks",), 17, host, "cpu", state, {"masks": "sam-nano-1"}), 10)
    assert run("status", "--this-machine", redis_url=redis_server.url).exit_code == code
