"""`make up` and docker-compose.yml pass on what the settings classes say that they do, and `.env.example` lists it."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from backend.settings import Settings as BackendSettings
from learning.settings import Settings as LearningSettings
from learning.training.options import FineTuneOptions
from stack.__main__ import up
from stack.components import BASE_SET, COMPONENTS, Stack, process_named
from stack.settings import CHECKOUT, PORT_VARIABLES, SETTINGS, StackSettings, StackVariables
from stack.state import Secrets, StateFolder, plan_launch
from tests.support.settings_page import shown
from worker.settings import Settings as WorkerSettings

FIELDS = {name: field for each in (*SETTINGS, StackVariables) for name, field in each.variables().items()}
OF_MAKE_UP = sorted({*StackVariables.variables(), *(name for each in SETTINGS for name in each.variables("make_up"))})
WITHOUT_EFFECT = {
    "OSPREY_SAM_MIRROR": "of `osprey models pull` alone",
    "OSPREY_REDIS_URL": "the stack has a Redis of its own",
    "OSPREY_LABEL_STUDIO_URL": "the stack has a Label Studio of its own",
    "OSPREY_LABEL_STUDIO_TOKEN": "made with the stack's Label Studio",
    "OSPREY_BACKEND_HOST": "everything listens on loopback",
    "OSPREY_BACKEND_USER": "known to the stack alone",
    "OSPREY_BACKEND_PASSWORD": "known to the stack alone",
    "OSPREY_BACKEND_AUTH": "the stack's Label Studio sends the password",
    "OSPREY_WEBHOOK_SECRET": "known to the stack alone",
}
SECRETS = Secrets("a", "b", "c", "d", "e", "f")
FREE = dict.fromkeys(PORT_VARIABLES.values(), "0")


def started(environ: dict[str, str], folder: Path) -> dict[str, object]:
    """Return command and environment of each process, and the ports, as `make up` computes them.

    Ports that no variable sets are the same each time.
    """
    settings = StackSettings.from_env({"OSPREY_STATE_DIR": str(folder), **FREE, **environ})
    StateFolder(folder).create()
    launch = plan_launch(settings, None, running=False)
    ports = {name: settings.ports.get(name) or at for at, name in enumerate(launch.ports, start=1)}
    stack = Stack(StateFolder(settings.state_dir), type(launch)(**{**vars(launch), "ports": ports}), SECRETS)
    stack.state.create()
    processes = {}
    for name in (*(each.name for each in COMPONENTS), BASE_SET):
        process = process_named(name, stack)
        processes[name] = [process.command, dict(process.environment)]
    return {**processes, "ports": ports}


def probe(name: str, tmp_path: Path) -> str:
    """Return a value that differs from the default."""
    if name in PORT_VARIABLES.values():
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            return str(free.getsockname()[1])
    return str(tmp_path / "elsewhere")


@pytest.mark.parametrize("name", OF_MAKE_UP)
def test_a_setting_of_make_up_reaches_a_component(name, tmp_path):
    """A variable that `make up` passes on, or reads, changes what it starts."""
    default, changed = started({}, tmp_path / "a"), started({name: probe(name, tmp_path)}, tmp_path / "a")
    assert json.dumps(changed) != json.dumps(default), f"`{name}=... make up` changes nothing"


@pytest.mark.parametrize("name", sorted(WITHOUT_EFFECT))
def test_a_setting_without_effect_is_declared_so(name, tmp_path):
    """A variable that `make up` does not pass on changes nothing; these are all of them, each for a reason."""
    assert started({name: probe(name, tmp_path)}, tmp_path / "a") == started({}, tmp_path / "a")
    assert FIELDS.keys() - set(OF_MAKE_UP) == WITHOUT_EFFECT.keys()


def test_make_passes_every_setting_on_unchanged(tmp_path):
    """The Makefile passes every variable on unchanged, including blanks and special characters."""
    seen = tmp_path / "seen"
    python = tmp_path / "a venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nenv -0 > "{seen}"\n')
    python.chmod(0o755)
    given = {name: f"/some where/{name} $HOME 100%" for name in FIELDS}
    command = ["make", f"VENV={tmp_path / 'a venv'}", "LABEL_STUDIO_VENV=/nowhere", "up"]
    done = subprocess.run(
        command, cwd=CHECKOUT, env={"PATH": "/usr/bin:/bin", **given}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    arrived = dict(line.split("=", 1) for line in seen.read_text().split("\0") if "=" in line)
    assert {name: arrived.get(name) for name in FIELDS} == given


def test_make_names_the_label_studio_of_the_environment_that_was_given(tmp_path):
    """`make up` runs the Label Studio in LABEL_STUDIO_VENV if no variable names the executable."""
    seen, python = tmp_path / "seen", tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nprintf %s "$OSPREY_LABEL_STUDIO_EXECUTABLE" > "{seen}"\n')
    python.chmod(0o755)
    command = ["make", f"VENV={tmp_path}", "LABEL_STUDIO_VENV=/some where", "up"]
    subprocess.run(command, cwd=CHECKOUT, env={"PATH": "/usr/bin:/bin"}, capture_output=True, check=True)
    assert seen.read_text() == "/some where/bin/label-studio"


# docker compose

# Variables that docker-compose.yml itself reads.
OF_COMPOSE = {
    "OSPREY_LABEL_STUDIO_USERNAME", "OSPREY_LABEL_STUDIO_PASSWORD", "OSPREY_LABEL_STUDIO_BIND",
    "OSPREY_LABEL_STUDIO_PORT", "OSPREY_LABEL_STUDIO_PUBLIC_URL", "OSPREY_CHECKPOINTS",
}  # fmt: skip
# Places inside the containers; all other defaults are those of the classes.
PLACES = {
    "OSPREY_MODEL": "/app/demo/checkpoints/osprey-nano",
    "OSPREY_SAM": "/app/demo/checkpoints/sam-nano",
    "OSPREY_REGISTRY": "/registry",
    "OSPREY_BASE_SET": "/exports/truth/base",
    "OSPREY_REPLAY": "/exports/truth/replay/data.json",
}
# Which classes a service reads. The data worker loads no model; only the train worker runs a gate.
READ_BY = {
    "backend": (BackendSettings,),
    "masks": (WorkerSettings,),
    "describe": (WorkerSettings,),
    "data": (LearningSettings,),
    "train": (LearningSettings, FineTuneOptions),
}
NOT_NEEDED = {
    "backend": {"OSPREY_RANDOM_SHARE"},
    "data": {
        "OSPREY_MODEL", "OSPREY_SAM", "OSPREY_DEVICE", "OSPREY_BASE_SET", "OSPREY_REPLAY", "OSPREY_AUTO_PROMOTE",
    },
    "train": {"OSPREY_PROJECTS", "OSPREY_RECONCILE_S", "OSPREY_FINETUNE_AFTER", "OSPREY_FINETUNE_CRON"},
}  # fmt: skip
ENVIRONMENTS: dict[str, dict[str, str]] = {
    name: service.get("environment", {})
    for name, service in yaml.safe_load((CHECKOUT / "docker-compose.yml").read_text())["services"].items()
}


def default_in_compose(name: str) -> str:
    """Return the default that a variable of a settings class should have in docker-compose.yml; "": none."""
    if name in FineTuneOptions.variables():
        return ""  # a value would count more than the checkpoint's finetune.json
    return PLACES.get(name, shown(name, FIELDS[name].default).strip("`"))


@pytest.mark.parametrize("service", READ_BY)
def test_compose_passes_on_what_the_classes_say(service):
    """Each service gets the variables of its classes, with their defaults, and no other variable of a class."""
    declared = {name for each in READ_BY[service] for name in each.variables("compose")}
    passed_on = {name: text for name, text in ENVIRONMENTS[service].items() if "${" + name in str(text)}
    missing = declared - passed_on.keys() - NOT_NEEDED.get(service, set())
    assert not missing, f"the service {service} of docker-compose.yml does not pass on {sorted(missing)}"
    not_declared = passed_on.keys() - {name for each in SETTINGS for name in each.variables("compose")}
    assert not not_declared, f"declare with compose=True, or do not pass on: {sorted(not_declared)}"
    for name, text in passed_on.items():
        assert re.sub(r"^(..\w+)-", r"\1:-", text) == f"${{{name}:-{default_in_compose(name)}}}"


def test_every_setting_of_compose_is_passed_on_somewhere():
    """A variable that a class declares for compose reaches at least one service."""
    passed_on = {name for service in READ_BY for name in ENVIRONMENTS[service]}
    assert {name for each in SETTINGS for name in each.variables("compose")} <= passed_on


def test_env_example_lists_what_compose_reads():
    """`.env.example` has each variable of docker-compose.yml once, with the default that it has there."""
    lines = re.findall(r"^(OSPREY_[A-Z0-9_]+)=(.*)$", (CHECKOUT / ".env.example").read_text(), re.MULTILINE)
    declared = {name for each in SETTINGS for name in each.variables("compose")}
    assert sorted(name for name, _ in lines) == sorted(declared | OF_COMPOSE)
    compose = (CHECKOUT / "docker-compose.yml").read_text()
    assert set(re.findall(r"\$\{(OSPREY_[A-Z0-9_]+)", compose)) == declared | OF_COMPOSE
    for name, text in lines:
        if name in OF_COMPOSE:
            assert f"${{{name}:-{text}}}" in compose
        else:
            assert text == default_in_compose(name)


def test_make_up_reports_a_misspelled_variable(monkeypatch, tmp_path, capsys):
    """`make up` prints one line about it before it starts anything."""
    started = []
    monkeypatch.setattr("stack.__main__.bring_up", lambda settings, *_: started.append(settings))
    for name in [name for name in os.environ if name.startswith("OSPREY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("OSPREY_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("OSPREY_MODLE", "/m")
    monkeypatch.setattr("stack.__main__.console", Console(width=40))
    up()
    assert [each.state_dir for each in started] == [tmp_path]
    assert capsys.readouterr().out == "OSPREY_MODLE is not a setting and has no effect; did you mean OSPREY_MODEL?\n"
