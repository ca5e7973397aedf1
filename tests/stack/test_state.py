"""Ports, secrets and the lock of the state folder."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from stack.settings import StackError, StackSettings
from stack.state import DEFAULT_PORTS, Launch, Secrets, StateFolder, plan_launch


def settings(folder: Path, **ports: int) -> StackSettings:
    """Settings that ask for `ports`."""
    return StackSettings(folder, Path("/bin/true"), ports, {})


def taken_port() -> socket.socket:
    """A socket that holds a port."""
    holder = socket.socket()
    holder.bind(("127.0.0.1", 0))
    holder.listen()
    return holder


def test_secrets_are_made_once_and_private(tmp_path):
    """The second load gives the first one's values; nobody else may read the file."""
    state = StateFolder(tmp_path / "state")
    state.create()
    first = state.load_secrets()
    assert state.load_secrets() == first
    assert (state.path / "secrets.json").stat().st_mode & 0o777 == 0o600
    assert len(set(vars(first).values())) == len(vars(first))


def test_two_generations_share_nothing():
    """Secrets are random."""
    one, other = vars(Secrets.generate()), vars(Secrets.generate())
    assert not set(filter(None, one.values())) & set(other.values())


def test_a_port_that_was_asked_for_and_is_taken_is_refused_by_name(tmp_path):
    """The message names the port and the variable."""
    with taken_port() as holder:
        port = holder.getsockname()[1]
        with pytest.raises(StackError, match=f"port {port} .OSPREY_BACKEND_PORT. is taken"):
            plan_launch(settings(tmp_path, backend=port), None, running=False)


def test_zero_asks_for_any_free_port(tmp_path):
    """0 never gives the usual port, and all four differ."""
    launch = plan_launch(settings(tmp_path, label_studio=0, backend=0, redis=0), None, running=False)
    assert len(set(launch.ports.values())) == 4
    assert not set(launch.ports.values()) & set(DEFAULT_PORTS.values())


def test_ports_are_kept_unless_another_program_took_them(tmp_path):
    """The next start uses the last one's ports; a port that is taken meanwhile is replaced, not fought for."""
    first = plan_launch(settings(tmp_path, label_studio=0, backend=0, redis=0), None, running=False)
    assert plan_launch(settings(tmp_path), first, running=False).ports == first.ports
    with taken_port() as holder:
        port = holder.getsockname()[1]
        moved = Launch(first.label_studio_executable, {**first.ports, "backend": port}, {})
        assert plan_launch(settings(tmp_path), moved, running=False).ports["backend"] != port
        assert plan_launch(settings(tmp_path), moved, running=True).ports["backend"] == port, "it is our own"


def test_the_folder_is_held_against_a_second_command(tmp_path):
    """Two `make up` at once: the second says so."""
    state = StateFolder(tmp_path / "state")
    with state.locked(), pytest.raises(StackError, match="another"), state.locked():
        pass


def test_settings_say_which_variable_is_wrong(tmp_path):
    """A port that is no port, and a Label Studio that is not there."""
    with pytest.raises(StackError, match=r"OSPREY_REDIS_PORT must be a port from 1 to 65535, .* got 'redis'"):
        StackSettings.from_env({"OSPREY_LABEL_STUDIO_EXECUTABLE": "/bin/true", "OSPREY_REDIS_PORT": "redis"})
    with pytest.raises(StackError, match="make env"):
        StackSettings.from_env({"OSPREY_LABEL_STUDIO_EXECUTABLE": str(tmp_path / "nothing")}).check_label_studio()


def test_the_small_model_brings_its_base_set_and_other_weights_do_not(tmp_path):
    state = {"OSPREY_STATE_DIR": str(tmp_path)}
    small = StackSettings.from_env(state)
    assert small.truth == tmp_path / "truth"
    assert small.handed_through["OSPREY_BASE_SET"] == str(tmp_path / "truth" / "base")
    others = StackSettings.from_env({**state, "OSPREY_MODEL": "/weights/osprey-7b"})
    assert others.truth is None
    assert not others.handed_through.keys() & {"OSPREY_BASE_SET", "OSPREY_REPLAY"}
    named = StackSettings.from_env({**state, "OSPREY_BASE_SET": "/frozen", "OSPREY_REPLAY": "/old/data.json"})
    assert named.truth is None
