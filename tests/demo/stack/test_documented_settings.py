"""Every setting of the README does something when it is given to `make up`, or the README says that it does not."""

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

# A row of the README's table of settings; its first cell may name several, and a star for those that `make up` sets.
ROW = re.compile(r"^\| (`OSPREY_[^|]*) \|", re.MULTILINE)
CELLS = ROW.findall((CHECKOUT / "README.md").read_text(encoding="utf-8"))
DOCUMENTED = sorted({name for cell in CELLS for name in re.findall(r"OSPREY_[A-Z0-9_]+", cell)})
STARRED = {name for cell in CELLS if cell.endswith("*") for name in re.findall(r"OSPREY_[A-Z0-9_]+", cell)}

WITHOUT_EFFECT = {
    "OSPREY_SAM_MIRROR": "of `osprey models pull` alone",
    "OSPREY_REDIS_URL": "the stack has a Redis of its own",
    "OSPREY_LABEL_STUDIO_URL": "the stack has a Label Studio of its own",
    "OSPREY_LABEL_STUDIO_TOKEN": "made with the stack's Label Studio",
    "OSPREY_BACKEND_HOST": "everything listens on loopback",
    "OSPREY_BACKEND_USER": "known to the stack alone",
    "OSPREY_BACKEND_PASSWORD": "known to the stack alone",
    "OSPREY_BACKEND_AUTH": "the stack's Label Studio says the password",
    "OSPREY_WEBHOOK_SECRET": "known to the stack alone",
}
SECRETS = Secrets("a", "b", "c", "d", "e", "f")
FREE = dict.fromkeys(PORT_VARIABLES.values(), "0")


def told(environ: dict[str, str], folder: Path) -> dict[str, object]:
    """Command and environment of each process, and where the stack lives, as `make up` computes them.

    The ports that nobody asked for are the same each time.
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
    """A value that is not the default."""
    if name in PORT_VARIABLES.values():
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            return str(free.getsockname()[1])
    return str(tmp_path / "elsewhere")


@pytest.mark.parametrize("name", [each for each in DOCUMENTED if each not in WITHOUT_EFFECT])
def test_a_documented_setting_reaches_a_component(name, tmp_path):
    default, changed = told({}, tmp_path / "a"), told({name: probe(name, tmp_path)}, tmp_path / "a")
    assert json.dumps(changed) != json.dumps(default), f"`{name}=... make up` changes nothing"


@pytest.mark.parametrize("name", sorted(WITHOUT_EFFECT))
def test_a_setting_without_effect_is_said_to_have_none(name, tmp_path):
    """Those that a person could think of as settings of `make up` have the star: the stack sets them itself."""
    assert told({name: probe(name, tmp_path)}, tmp_path / "a") == told({}, tmp_path / "a")
    assert name in DOCUMENTED, "the README does not have it any more"
    assert name in STARRED or name == "OSPREY_SAM_MIRROR"


def test_make_hands_every_setting_on_unchanged(tmp_path):
    """The Makefile adds nothing to a setting that was given and takes nothing away, with blanks and all."""
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
    """LABEL_STUDIO_VENV, unless the executable itself is named."""
    seen, python = tmp_path / "seen", tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nprintf %s "$OSPREY_LABEL_STUDIO_EXECUTABLE" > "{seen}"\n')
    python.chmod(0o755)
    command = ["make", f"VENV={tmp_path}", "LABEL_STUDIO_VENV=/some where", "up"]
    subprocess.run(command, cwd=CHECKOUT, env={"PATH": "/usr/bin:/bin"}, capture_output=True, check=True)
    assert seen.read_text() == "/some where/bin/label-studio"
