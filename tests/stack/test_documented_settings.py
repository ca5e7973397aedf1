"""Every setting of docs/settings.md has an effect on `make up`, or is marked there as one that has none."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from pathlib import Path

import pytest

from stack.components import BASE_SET, COMPONENTS, Stack, process_named
from stack.settings import CHECKOUT, PORT_VARIABLES, StackSettings
from stack.state import Secrets, StateFolder, plan_launch

# A row of a table of settings. Its first cell names a setting, with a star if `make up` sets or ignores it.
ROW = re.compile(r"^\| (`OSPREY_[^|]*) \|", re.MULTILINE)
CELLS = ROW.findall((CHECKOUT / "docs" / "settings.md").read_text(encoding="utf-8"))
DOCUMENTED = sorted({name for cell in CELLS for name in re.findall(r"OSPREY_[A-Z0-9_]+", cell)})
STARRED = {name for cell in CELLS if cell.endswith("*") for name in re.findall(r"OSPREY_[A-Z0-9_]+", cell)}

WITHOUT_EFFECT = {
    "OSPREY_SAM_MIRROR": "only `osprey models pull` reads it",
    "OSPREY_REDIS_URL": "the stack has a Redis of its own",
    "OSPREY_LABEL_STUDIO_URL": "the stack has a Label Studio of its own",
    "OSPREY_LABEL_STUDIO_TOKEN": "the stack makes one in its own Label Studio",
    "OSPREY_BACKEND_HOST": "everything listens on loopback",
    "OSPREY_BACKEND_USER": "the stack chooses it",
    "OSPREY_BACKEND_PASSWORD": "the stack chooses it",
    "OSPREY_BACKEND_AUTH": "the stack's Label Studio always sends the password",
    "OSPREY_WEBHOOK_SECRET": "the stack chooses it",
}
SECRETS = Secrets("a", "b", "c", "d", "e", "f")
FREE = dict.fromkeys(PORT_VARIABLES.values(), "0")


def planned(environ: dict[str, str], folder: Path) -> dict[str, object]:
    """Return command and environment of each process, and the ports, as `make up` computes them.

    Ports that `environ` does not set are the same in each call.
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
    """Return a value of a setting that is not its default."""
    if name in PORT_VARIABLES.values():
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            return str(free.getsockname()[1])
    return str(tmp_path / "elsewhere")


@pytest.mark.parametrize("name", [each for each in DOCUMENTED if each not in WITHOUT_EFFECT])
def test_a_documented_setting_reaches_a_component(name, tmp_path):
    """Command, environment or port of at least one process depends on it."""
    assert len(DOCUMENTED) > 50, "the tables were not found"
    default, changed = planned({}, tmp_path / "a"), planned({name: probe(name, tmp_path)}, tmp_path / "a")
    assert json.dumps(changed) != json.dumps(default), f"`{name}=... make up` changes nothing"


@pytest.mark.parametrize("name", sorted(WITHOUT_EFFECT))
def test_a_setting_without_effect_is_marked(name, tmp_path):
    """No process depends on it, and it has a star, except a setting that only another command reads."""
    assert planned({name: probe(name, tmp_path)}, tmp_path / "a") == planned({}, tmp_path / "a")
    assert name in DOCUMENTED, "docs/settings.md no longer lists it"
    assert name in STARRED or name == "OSPREY_SAM_MIRROR"


def test_make_passes_every_setting_on_unchanged(tmp_path):
    """The Makefile does not change the value of a setting, whatever characters it contains."""
    seen = tmp_path / "seen"
    python = tmp_path / "a venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nenv -0 > "{seen}"\n')
    python.chmod(0o755)
    given = {name: f"/some where/{name} $HOME 100%" for name in DOCUMENTED}
    command = ["make", f"VENV={tmp_path / 'a venv'}", "LABEL_STUDIO_VENV=/nowhere", "up"]
    done = subprocess.run(
        command, cwd=CHECKOUT, env={"PATH": "/usr/bin:/bin", **given}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    arrived = dict(line.split("=", 1) for line in seen.read_text().split("\0") if "=" in line)
    assert {name: arrived.get(name) for name in DOCUMENTED} == given


def test_make_names_the_label_studio_of_the_environment_that_was_given(tmp_path):
    """`LABEL_STUDIO_VENV` names the environment whose `label-studio` is started."""
    seen, python = tmp_path / "seen", tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nprintf %s "$OSPREY_LABEL_STUDIO_EXECUTABLE" > "{seen}"\n')
    python.chmod(0o755)
    command = ["make", f"VENV={tmp_path}", "LABEL_STUDIO_VENV=/some where", "up"]
    subprocess.run(command, cwd=CHECKOUT, env={"PATH": "/usr/bin:/bin"}, capture_output=True, check=True)
    assert seen.read_text() == "/some where/bin/label-studio"
