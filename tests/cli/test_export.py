"""Claims about `osprey export`."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from typer.testing import CliRunner

from cli.main import app
from tests.support.submitted import CAR, PROJECT, annotation, region, task


@contextmanager
def label_studio(answers: dict[str, object]) -> Iterator[str]:
    """A server that answers these paths, and 404 to any other; its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = answers.get(self.path.partition("?")[0])
            body = json.dumps(answer).encode()
            self.send_response(404 if answer is None else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def run(url: str, *arguments: str):
    """`osprey export` against that Label Studio."""
    environment = {"OSPREY_LABEL_STUDIO_URL": url, "OSPREY_LABEL_STUDIO_TOKEN": "ab" * 20, "COLUMNS": "200"}
    return CliRunner().invoke(app, ["export", *arguments], env=environment)


def test_export_writes_the_folder_and_says_what_is_in_it(tmp_path):
    """The files are written, counted on the screen, and what could not be exported is pointed at."""
    stray = {"id": "k1", "type": "keypoint", "from_name": "click", "to_name": "image", "value": {"x": 1, "y": 1}}
    tasks = [task(1, annotation(1, [stray], region("car00001", CAR)))]
    with label_studio({"/api/projects/3": PROJECT, "/api/tasks": {"tasks": tasks, "total": 1}}) as url:
        result = run(url, "--project", "3", "--out", str(tmp_path / "out"), "--without-images", "--held-out", "0")
        again = run(url, "--project", "3", "--out", str(tmp_path / "out"), "--without-images", "--held-out", "0")
    assert result.exit_code == 0, result.output
    assert "osprey_short_form.json" in result.output
    assert "1 regions of 1 annotations" in result.output
    assert "Not exported, or not as submitted: mask 1" in result.output
    folder = Path(result.output.splitlines()[-1].removeprefix("New: "))
    assert folder == tmp_path / "out" / (tmp_path / "out" / "3.latest").read_text().strip()
    assert (folder / "manifest.json").exists()
    assert again.output.splitlines()[-1] == f"Unchanged: {folder}"


def test_unknown_project_ends_with_1_and_the_reason(tmp_path):
    """No such project: status 1, one sentence, nothing written."""
    with label_studio({}) as url:
        result = run(url, "--project", "9", "--out", str(tmp_path / "out"))
    assert result.exit_code == 1
    assert "no such project" in result.stderr
    assert not (tmp_path / "out").exists()


def test_config_that_cannot_be_read_ends_with_1(tmp_path):
    """A project of another kind of task is refused with the reader's own message."""
    with label_studio({"/api/projects/3": {**PROJECT, "label_config": "<View/>"}}) as url:
        result = run(url, "--project", "3", "--out", str(tmp_path / "out"))
    assert result.exit_code == 1
    assert "<Image" in result.stderr


def test_missing_address_names_the_variable(tmp_path):
    """Without an address the command says which variable to set."""
    result = run("", "--project", "3", "--out", str(tmp_path / "out"))
    assert result.exit_code == 2
    assert "OSPREY_LABEL_STUDIO_URL" in result.stderr


def test_layout_and_folder_can_be_chosen(tmp_path):
    """COCO into the folder of OSPREY_EXPORTS; an unknown layout is refused with the known ones."""
    tasks = [task(1, annotation(1, region("car00001", CAR)))]
    environment = {"OSPREY_EXPORTS": str(tmp_path / "kept"), "OSPREY_LABEL_STUDIO_TOKEN": "ab" * 20, "COLUMNS": "200"}
    with label_studio({"/api/projects/3": PROJECT, "/api/tasks": {"tasks": tasks, "total": 1}}) as url:
        command = ["export", "--project", "3", "--without-images", "--format", "coco"]
        environment["OSPREY_LABEL_STUDIO_URL"] = url
        result = CliRunner().invoke(app, command, env=environment)
    assert result.exit_code == 0, result.output
    assert [path.name for path in (tmp_path / "kept").glob("3-coco-*/train.json")] == ["train.json"]
    refused = CliRunner().invoke(app, ["export", "--project", "3", "--format", "voc"], env=environment)
    assert refused.exit_code == 2
    assert "parquet" in refused.output


def test_images_are_fetched_from_label_studio(tmp_path):
    """An image that Label Studio does not have is named; the version is written all the same."""
    tasks = [task(1, annotation(1, region("car00001", CAR)))]
    with label_studio({"/api/projects/3": PROJECT, "/api/tasks": {"tasks": tasks, "total": 1}}) as url:
        result = run(url, "--project", "3", "--out", str(tmp_path / "out"))
    assert result.exit_code == 0, result.output
    assert "image 1" in result.output
    folder = Path(result.output.splitlines()[-1].removeprefix("New: "))
    assert "is gone (HTTP 404" in (folder / "problems.jsonl").read_text()
