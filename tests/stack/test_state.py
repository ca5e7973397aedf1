"""Claims about the state folder: its ports, secrets, records and lock."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from stack.settings import StackError, StackSettings
from stack.state import DEFAULT_PORTS, Launch, Secrets, StateFolder, plan_launch


def settings(folder: Path, **ports: int) -> StackSettings:
    """Return settings that ask for `ports`."""
    return StackSettings(folder, Path("/bin/true"), ports, {})


def taken_port() -> socket.socket:
    """Return a socket that listens on a free port."""
    holder = socket.socket()
    holder.bind(("127.0.0.1", 0))
    holder.listen()
    return holder


def test_secrets_are_made_once_and_private(tmp_path):
    """The second load returns the values of the first one, and only the owner may read the file."""
    state = StateFolder(tmp_path / "state")
    state.create()
    first = state.load_secrets()
    assert state.load_secrets() == first
    assert (state.path / "secrets.json").stat().st_mode & 0o777 == 0o600
    assert len(set(vars(first).values())) == len(vars(first))


def test_two_generations_share_nothing():
    """Two calls generate different secrets."""
    one, other = vars(Secrets.generate()), vars(Secrets.generate())
    assert not set(filter(None, one.values())) & set(other.values())


def test_a_port_that_was_asked_for_and_is_taken_is_refused_by_name(tmp_path):
    """The error names the port and the variable."""
    with taken_port() as holder:
        port = holder.getsockname()[1]
        with pytest.raises(StackError, match=f"port {port} .OSPREY_BACKEND_PORT. is taken"):
            plan_launch(settings(tmp_path, backend=port), None, running=False)


def test_zero_asks_for_any_free_port(tmp_path):
    """A port of 0 never gives the default port, and all four ports differ."""
    launch = plan_launch(settings(tmp_path, label_studio=0, backend=0, redis=0), None, running=False)
    assert len(set(launch.ports.values())) == 4
    assert not set(launch.ports.values()) & set(DEFAULT_PORTS.values())


def test_ports_are_kept_unless_another_program_took_them(tmp_path):
    """The next start uses the ports of the last one; a port that another program uses by then is replaced."""
    first = plan_launch(settings(tmp_path, label_studio=0, backend=0, redis=0), None, running=False)
    assert plan_launch(settings(tmp_path), first, running=False).ports == first.ports
    with taken_port() as holder:
        port = holder.getsockname()[1]
        moved = Launch(first.label_studio_executable, {**first.ports, "backend": port}, {})
        assert plan_launch(settings(tmp_path), moved, running=False).ports["backend"] != port
        assert plan_launch(settings(tmp_path), moved, running=True).ports["backend"] == port, "it is our own"


def test_the_folder_is_held_against_a_second_command(tmp_path):
    """The second of two commands at the same time ends with an error."""
    state = StateFolder(tmp_path / "state")
    with state.locked(), pytest.raises(StackError, match="another"), state.locked():
        pass


def test_settings_say_which_variable_is_wrong(tmp_path):
    """The error names the variable of a value that is not a port, and the command that installs Label Studio."""
    with pytest.raises(StackError, match=r"OSPREY_REDIS_PORT must be a port from 1 to 65535, .* got 'redis'"):
        StackSettings.from_env({"OSPREY_LABEL_STUDIO_EXECUTABLE": "/bin/true", "OSPREY_REDIS_PORT": "redis"})
    with pytest.raises(StackError, match="make env"):
        StackSettings.from_env({"OSPREY_LABEL_STUDIO_EXECUTABLE": str(tmp_path / "nothing")}).check_label_studio()


def test_records_of_another_release_are_read(tmp_path):
    """Unknown keys are ignored; keys that an older release did not write take their default."""
    state = StateFolder(tmp_path / "state")
    state.create()
    secrets = {
        "label_studio_password": "a", "redis_password": "b", "backend_password": "c", "webhook_secret": "d",
        "supervisor_password": "e",
    }  # fmt: skip
    (state.path / "secrets.json").write_text(json.dumps({**secrets, "of_a_later_release": {"key": 1}}))
    assert state.load_secrets() == Secrets("a", "b", "c", "d", "e", label_studio_token="")
    launch = {"label_studio_executable": "/ls", "ports": {"backend": 9090}, "passed_through": {"OSPREY_DEVICE": "cpu"}}
    (state.path / "launch.json").write_text(json.dumps({**launch, "of_a_later_release": [1]}))
    assert state.load_launch() == Launch("/ls", {"backend": 9090}, {"OSPREY_DEVICE": "cpu"}, place="")


def test_a_launch_of_an_earlier_release_is_read(tmp_path):
    """The old key `handed_through` is read as `passed_through`, and the next start writes only the new key."""
    state = StateFolder(tmp_path / "state")
    state.create()
    file = state.path / "launch.json"
    file.write_text(
        """{
          "label_studio_executable": "/ls",
          "ports": {"label_studio": 8080, "backend": 9090, "redis": 6380, "supervisor": 9001},
          "handed_through": {"OSPREY_DEVICE": "cpu", "OSPREY_MODEL": "/weights"},
          "place": "/state"
        }"""
    )
    ports = {"label_studio": 8080, "backend": 9090, "redis": 6380, "supervisor": 9001}
    launch = state.load_launch()
    assert launch == Launch("/ls", ports, {"OSPREY_DEVICE": "cpu", "OSPREY_MODEL": "/weights"}, "/state")
    state.save_launch(launch)
    assert json.loads(file.read_text()).keys() == {"label_studio_executable", "ports", "passed_through", "place"}
    assert state.load_launch() == launch


@pytest.mark.parametrize("text", ["", "[]", '{"ports": {}}', '{"label_studio_executable": 1}'])
def test_damaged_records_are_an_error_with_the_name_of_the_file(tmp_path, text):
    """The commands print the error without a traceback, and no secret is replaced."""
    state = StateFolder(tmp_path / "state")
    state.create()
    for name, load in (("secrets.json", state.load_secrets), ("launch.json", state.load_launch)):
        (state.path / name).write_text(text)
        with pytest.raises(StackError, match=rf"{name} cannot be read.*backup"):
            load()
        assert (state.path / name).read_text() == text


def test_paths_that_are_not_utf8_are_kept(tmp_path):
    """A path may contain any bytes; it is read as it was written."""
    state = StateFolder(tmp_path / "state")
    state.create()
    launch = Launch("/ls-\udcff", {"backend": 9090}, {"OSPREY_MODEL": "/weights-\udcfe"}, "/state-\udcff")
    state.save_launch(launch)
    assert state.load_launch() == launch


def test_the_small_model_brings_its_base_set_and_other_weights_do_not(tmp_path):
    """Base set and replay data are made only for the small model, and only where none were named."""
    state = {"OSPREY_STATE_DIR": str(tmp_path)}
    small = StackSettings.from_env(state)
    assert small.truth == tmp_path / "truth"
    assert small.passed_through["OSPREY_BASE_SET"] == str(tmp_path / "truth" / "base")
    others = StackSettings.from_env({**state, "OSPREY_MODEL": "/weights/osprey-7b"})
    assert others.truth is None
    assert not others.passed_through.keys() & {"OSPREY_BASE_SET", "OSPREY_REPLAY"}
    named = StackSettings.from_env({**state, "OSPREY_BASE_SET": "/frozen", "OSPREY_REPLAY": "/old/data.json"})
    assert named.truth is None
