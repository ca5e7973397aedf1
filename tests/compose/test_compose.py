"""docker-compose.yml, built and brought up for real: a click through Label Studio, then down and up again.

Needs a compose command: Docker's, or any that speaks its language, named by OSPREY_COMPOSE.
Run with `make test-compose`; the images take minutes to build the first time.
"""

import os
import shlex
import shutil
import socket
import subprocess
import time
from pathlib import Path

import httpx
import numpy as np
import pytest

from demo.scenes import DEMO_SEEDS, make_scene
from label_config.geometry.region_mask import region_mask
from stack.label_studio_token import make_token
from stack.sample_project import TITLE
from worker.label_studio.api import LabelStudioApi

CHECKOUT = Path(__file__).resolve().parents[2]
COMPOSE = shlex.split(os.environ.get("OSPREY_COMPOSE", "docker compose"))

# The gate asks it, so a fine-tune reads it before it trains.
READ_BASE_SET = (
    'import os, pathlib, learning.gate.exam as exam; exam.read_base_exam(pathlib.Path(os.environ["OSPREY_BASE_SET"]))'
)

pytestmark = [pytest.mark.slow, pytest.mark.compose, pytest.mark.timeout(3600)]


class ComposeStack:
    """The stack of docker-compose.yml under a project name and port of its own."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def run(self, *arguments: str, limit_s: float = 0) -> str:
        """The output of one compose command, tried again for `limit_s`; its last failure is the test's failure."""
        command = [*COMPOSE, "-p", "osprey-test", "-f", "docker-compose.yml", *arguments]
        environment = {**os.environ, "OSPREY_LABEL_STUDIO_PORT": str(self.port), "OSPREY_BLIND_SHARE": "0"}
        deadline = time.monotonic() + limit_s
        while True:
            done = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True)
            if done.returncode == 0:
                return done.stdout
            late = f"{' '.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
            assert time.monotonic() < deadline, late
            time.sleep(2)

    def inside(self, service: str, script: str, *, limit_s: float = 0) -> str:
        """What a shell script prints in a service's container, with that service's secrets."""
        return self.run("exec", "-T", service, "/app/docker/with-secrets.sh", "sh", "-c", script, limit_s=limit_s)

    def login(self) -> tuple[str, str]:
        """The first user's name and password, from where the services keep them."""
        lines = self.run("exec", "-T", "backend", "cat", "/secrets/label-studio.env").splitlines()
        values = dict(line.split("=", 1) for line in lines if "=" in line)
        return tuple(shlex.split(values[name])[0] for name in ("LABEL_STUDIO_USERNAME", "LABEL_STUDIO_PASSWORD"))

    def token(self) -> str:
        """The workers' token: making another one would revoke theirs."""
        line = self.run("exec", "-T", "backend", "cat", "/secrets/token.env").strip()
        return shlex.split(line.split("=", 1)[1])[0]


@pytest.fixture(scope="module")
def stack():
    if shutil.which(COMPOSE[0]) is None or subprocess.run([*COMPOSE, "version"], capture_output=True).returncode:
        pytest.skip(f"no compose command: {shlex.join(COMPOSE)} does not work here; OSPREY_COMPOSE names another")
    stack = ComposeStack()
    stack.run("build")
    stack.run("up", "-d")
    yield stack
    stack.run("down", "-v", "--remove-orphans")


def wait_for_click(api, task, scene):
    """The answer to one click on the scene's first object, once the workers have loaded their models."""
    point = scene.objects[0].inner_point_px
    width, height = scene.image.size
    prompt = {
        "id": "click00001",
        "type": "keypoint",
        "from_name": "click",
        "to_name": "image",
        "origin": "manual",
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "is_positive": True,
        "value": {"x": 100 * point[0] / width, "y": 100 * point[1] / height, "width": 0.3, "labels": []},
    }
    backend_id = api.call("GET", "/api/ml", params={"project": task["project"]})[0]["id"]
    deadline = time.monotonic() + 180
    while True:
        answer = api.call(
            "POST",
            f"/api/ml/{backend_id}/interactive-annotating",
            json={"task": task["id"], "context": {"result": [prompt]}},
        )
        items = (answer.get("data") or {}).get("result", [])
        filled = {item["from_name"] for item in items}
        if {"category", "short_description", "detailed_description"} <= filled or time.monotonic() > deadline:
            return items
        time.sleep(2)


def test_a_click_is_answered_and_survives_down_and_up(stack):
    """The page answers, a click gives mask and fields, what is submitted is collected, down + up keeps all of it."""
    assert httpx.get(f"{stack.url}/user/login/", trust_env=False).status_code == 200
    api = LabelStudioApi(stack.url, stack.token())
    project = next(p for p in api.call("GET", "/api/projects")["results"] if p["title"] == TITLE)
    tasks = api.call("GET", "/api/tasks", params={"project": project["id"], "fields": "all"})["tasks"]
    task = next(t for t in tasks if t["data"]["image"].endswith(f"scene-{DEMO_SEEDS[0]}.png"))
    scene = make_scene(DEMO_SEEDS[0])

    items = wait_for_click(api, {**task, "project": project["id"]}, scene)
    mask, truth = region_mask(items[0]), scene.objects[0].mask
    assert np.logical_and(mask, truth).sum() / np.logical_or(mask, truth).sum() > 0.8
    texts = {item["from_name"]: item["value"].get("text") for item in items[1:]}
    assert texts["category"] == [scene.objects[0].category]

    made = api.call("POST", f"/api/tasks/{task['id']}/annotations/", json={"result": items, "lead_time": 3.0})
    api.close()
    export = f"osprey export --project {project['id']} --from-store"
    stack.inside("data", f"{export} | grep -q '1 regions of 1 annotations'", limit_s=120)  # a webhook told of it
    for service in ("data", "train"):
        stack.inside(service, "osprey status --this-machine", limit_s=120)
        stack.inside(service, f"test -w /registry && grep -q . /exports/{project['id']}-*/regions.jsonl")
    stack.inside("train", f"test -s $OSPREY_REPLAY && python -c '{READ_BASE_SET}'", limit_s=600)  # made beside

    stack.run("down")
    stack.run("up", "-d")
    again = LabelStudioApi(stack.url, stack.token())
    stored = again.call("GET", f"/api/annotations/{made['id']}/")
    assert stored["result"] == made["result"]
    again.close()
    email, password = stack.login()
    assert make_token(stack.url, email, password)
