"""A complete stack for the browser tests, started as `make up` does it, on free ports in a temporary folder."""

from __future__ import annotations

import io
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

from stack.components import BACKEND_USER, COMPONENTS, LOGIN, Stack
from stack.settings import CHECKOUT
from stack.state import Launch, StateFolder
from stack.supervisor import Supervisor
from worker.label_studio.api import LabelStudioApi
from worker.label_studio.connection import BackendAddress, connect

START_LIMIT_S = 1000


@dataclass(frozen=True)
class Project:
    """A project of one test, and its tasks in the order of their images."""

    id: int
    task_ids: tuple[int, ...]


class RunningStack:
    """The stack as tests use it: projects, users, and functions that break and repair its components."""

    def __init__(self, state_dir: Path) -> None:
        self._state = StateFolder(state_dir)
        self._environ = {
            **os.environ,
            "OSPREY_STATE_DIR": str(state_dir),
            "OSPREY_LABEL_STUDIO_PORT": "0",
            "OSPREY_BACKEND_PORT": "0",
            "OSPREY_REDIS_PORT": "0",
            # These tests do not check speed, and the browser may share two cores with the workers.
            "OSPREY_WAIT_BUDGET_S": "40",
            "OSPREY_BLIND_SHARE": "0",
            "OSPREY_FINETUNE_MAX_STEPS": "2",  # tests check the steps of a fine-tune, not its result
        }

    def command(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `python -m stack ...` with this stack's settings."""
        done = subprocess.run(
            [sys.executable, "-m", "stack", *arguments],
            env=self._environ, cwd=CHECKOUT, text=True, timeout=START_LIMIT_S, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"stack {arguments} failed:\n{done.stdout}"
        return done

    @property
    def stack(self) -> Stack:
        """Addresses and secrets of the present run."""
        launch = self._state.load_launch()
        assert launch is not None, "the stack was never started"
        return Stack(self._state, launch, self._state.load_secrets())

    @property
    def url(self) -> str:
        """Label Studio's address."""
        return self.stack.label_studio_url

    @property
    def admin(self) -> tuple[str, str]:
        """Email and password of the first user."""
        return LOGIN, self.stack.secrets.label_studio_password

    @property
    def supervisor(self) -> Supervisor:
        """The supervisor, to stop and start single parts."""
        return Supervisor(self.stack)

    def api(self) -> LabelStudioApi:
        """Return Label Studio's API as the first user."""
        return LabelStudioApi(self.url, self.stack.secrets.label_studio_token)

    def backend_address(self) -> BackendAddress:
        """Return the backend's address and credentials for Label Studio."""
        known = self.stack.secrets
        return BackendAddress(self.stack.backend_url, BACKEND_USER, known.backend_password, known.webhook_secret)

    def make_project(self, title: str, label_config: str, images: Iterable[Image.Image | bytes | str]) -> Project:
        """Make a connected project. An image is a picture, bytes to upload as a PNG file, or the URL for the task."""
        with self.api() as api:
            record = {"title": title, "label_config": label_config, "reveal_preannotations_interactively": True}
            project_id = int(api.call("POST", "/api/projects", json=record)["id"])
            for number, image in enumerate(images):
                if isinstance(image, str):
                    api.call("POST", f"/api/projects/{project_id}/import", json=[{"image": image}])
                    continue
                if isinstance(image, Image.Image):
                    buffer = io.BytesIO()
                    image.save(buffer, "PNG")
                    image = buffer.getvalue()
                file = {"file": (f"{number}.png", image, "image/png")}
                api.call("POST", f"/api/projects/{project_id}/import", files=file)
            connect(api, project_id, self.backend_address())
            tasks = api.call("GET", "/api/tasks", params={"project": project_id, "page_size": 100})["tasks"]
        return Project(project_id, tuple(sorted(int(task["id"]) for task in tasks)))

    def add_user(self) -> tuple[str, str]:
        """Make another user with the invitation link; return email and password."""
        email, password = f"{secrets.token_hex(4)}@osprey.local", secrets.token_urlsafe(12)
        with self.api() as api:
            token = re.search(r"token=(\w+)", str(api.call("GET", "/api/invite")["invite_url"]))
        assert token is not None, "Label Studio gave no invitation link"
        with httpx.Client(base_url=self.url, timeout=60, trust_env=False, headers={"Referer": self.url}) as client:
            page = f"/user/signup/?token={token.group(1)}"
            client.get(page)
            form = {"email": email, "password": password, "allow_newsletters": "false", "how_find_us": "-"}
            form["csrfmiddlewaretoken"] = str(client.cookies.get("csrftoken"))
            answer = client.post(page, data=form)
            assert answer.status_code == 302, f"sign-up of {email}: {answer.status_code}"
        return email, password

    def stop(self, name: str) -> None:
        """Stop one component and wait until it has ended."""
        self.supervisor.stop_component(name)

    def start(self, name: str, *, limit_s: float = 120) -> None:
        """Start one component and wait until it works."""
        self.supervisor.start_component(name)
        self.wait_until_works(name, limit_s)

    def wait_until_works(self, name: str, limit_s: float = 120) -> None:
        """Wait until a component's health check succeeds."""
        component = next(each for each in COMPONENTS if each.name == name)
        deadline = time.monotonic() + limit_s
        while (problem := component.problem(self.stack)) is not None:
            late = f"{name} does not work after {limit_s:.0f} s: {problem}\n{self.log(name)}"
            assert time.monotonic() < deadline, late
            time.sleep(0.1)

    def freeze(self, name: str) -> None:
        """Suspend a component without ending it (SIGSTOP), like an overloaded machine."""
        os.kill(self.supervisor.component_pid(name), signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        """Continue a suspended component."""
        os.kill(self.supervisor.component_pid(name), signal.SIGCONT)

    def restart_with(self, name: str, settings: Mapping[str, str]) -> Mapping[str, str]:
        """Restart a component with other settings; return the previous ones, so that the test can restore them."""
        launch = self.stack.launch
        before = {key: launch.passed_through.get(key, "") for key in settings}
        passed_through = {key: text for key, text in {**launch.passed_through, **settings}.items() if text}
        self._state.save_launch(Launch(launch.label_studio_executable, launch.ports, passed_through))
        self.supervisor.stop_component(name)
        self.supervisor.start_component(name)
        return before

    def osprey(self, *arguments: str) -> str:
        """Run `osprey ARGUMENTS` as `make osprey` does, and return what it prints."""
        return self.command("osprey", *arguments).stdout

    def annotation(self, annotation_id: int) -> dict[str, Any]:
        """Return a stored annotation."""
        with self.api() as api:
            return dict(api.call("GET", f"/api/annotations/{annotation_id}/"))

    def predict(
        self,
        project: Project,
        task_id: int,
        label_config: str,
        point_pct: tuple[float, float],
        image_wh: tuple[int, int],
    ) -> dict[str, Any]:
        """Send a smart point to the backend as Label Studio does, and return the answer."""
        with self.api() as api:
            task = api.call("GET", f"/api/tasks/{task_id}/")
        prompt = {
            "id": "point", "type": "keypoint", "from_name": "click", "to_name": "image", "origin": "manual",
            "original_width": image_wh[0], "original_height": image_wh[1], "image_rotation": 0, "is_positive": True,
            "value": {"x": point_pct[0], "y": point_pct[1], "width": 0.2, "labels": []},
        }  # fmt: skip
        body = {
            "tasks": [{"id": task_id, "data": task["data"], "annotations": [], "drafts": [], "predictions": []}],
            "project": f"{project.id}.1", "label_config": label_config,
            "params": {"login": None, "password": None, "context": {"result": [prompt]}},
        }  # fmt: skip
        credentials = (BACKEND_USER, self.stack.secrets.backend_password)
        url = f"{self.stack.backend_url}/predict"
        answer = httpx.post(url, json=body, auth=credentials, timeout=60, trust_env=False)
        assert answer.status_code == 200, f"{answer.status_code}: {answer.text[:500]}"
        return dict(answer.json())

    def log(self, name: str, lines: int = 30) -> str:
        """Return the end of a component's log."""
        file = self._state.logs / f"{name}.log"
        return "\n".join(file.read_text(errors="replace").splitlines()[-lines:]) if file.exists() else "(no log)"
