"""Claims about `osprey prelabel` and `osprey describe` as a person runs them."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

import label_config
from cli.main import app
from cli.prelabel import parse_task_ids
from tests.support.fake_predictions import FakePredictions, task
from tests.support.worker_process import WorkerProcess

CONFIG = Path(label_config.__file__).with_name("bitmask.xml").read_text()


@pytest.mark.redis
def test_failures_are_listed_and_the_exit_code_says_so(redis_server, tmp_path, monkeypatch):
    """One broken image of three: two tasks are pre-annotated, the third is named, the exit code is 1; then 0."""
    tasks = [task(1), task(2, "data:image/png;base64,AAAA"), task(3)]
    with closing(FakePredictions(CONFIG, tasks)) as server:
        environ = {
            "OSPREY_LABEL_STUDIO_URL": server.url,
            "OSPREY_LABEL_STUDIO_TOKEN": "legacy",
            "OSPREY_REDIS_URL": redis_server.url,
        }
        worker = WorkerProcess(redis_server.url, tmp_path, queues="prelabel", environ=environ)
        try:
            worker.wait_until_ready()
            for name, value in environ.items():
                monkeypatch.setenv(name, value)
            ran = CliRunner().invoke(app, ["prelabel", "--project", "1", "--queue"])
            assert ran.exit_code == 1, ran.output
            assert "2 tasks pre-annotated (6 regions), 0 were before, 1 failed." in " ".join(ran.output.split())
            assert "task 2:" in ran.output
            ran = CliRunner().invoke(app, ["prelabel", "--project", "1", "--queue", "--tasks", "1,3"])
            assert ran.exit_code == 0, ran.output
            assert "0 tasks pre-annotated (0 regions), 2 were before" in " ".join(ran.output.split())
        finally:
            worker.kill()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["prelabel", "--project", "1", "--tasks", "one"], "expected task numbers"),
        (["describe", "nowhere", "--out", "x.jsonl"], "does not exist"),
        (["describe", ".", "--out", "x.jsonl", "--question", "What is this?"], "exactly once"),
    ],
)
def test_what_makes_no_sense_is_refused_before_a_model_is_loaded(arguments, said):
    ran = CliRunner().invoke(app, arguments)
    assert ran.exit_code == 2
    assert said in " ".join(ran.output.replace("│", " ").split())


def test_no_label_studio_is_told(monkeypatch):
    monkeypatch.delenv("OSPREY_LABEL_STUDIO_URL", raising=False)
    ran = CliRunner().invoke(app, ["prelabel", "--project", "1"])
    assert ran.exit_code == 1
    assert "OSPREY_LABEL_STUDIO_URL" in ran.output


def test_task_numbers_and_ranges_are_read():
    assert parse_task_ids("1, 2,5-7,6-8") == {1, 2, 5, 6, 7, 8}


@pytest.mark.parametrize("text", ["", "a", "1,,2", "9-5", "-3", "1-", "1-99999999"])
def test_other_task_numbers_are_refused(text):
    with pytest.raises(ValueError, match="expected"):
        parse_task_ids(text)
