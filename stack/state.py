"""The state folder, in which the stack keeps everything: data, logs, ports and secrets.

Deleting the folder (after `make down`) resets the stack; copying it is a backup.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

from job_queue.records import build_record
from stack.settings import PORT_VARIABLES, StackError, StackSettings

T = TypeVar("T")

# An environment variable that every process of a stack inherits, so that they are found without their supervisor.
MARK = "OSPREY_STACK_MARK"
DEFAULT_PORTS = {"label_studio": 8080, "backend": 9090, "redis": 6380}
_RENAMED = {"handed_through": "passed_through"}  # key of a record of an earlier release -> key of this one


@dataclass(frozen=True)
class Secrets:
    """The secrets of a stack, generated at its first start and kept in a file that only its owner can read."""

    label_studio_password: str
    redis_password: str
    backend_password: str
    webhook_secret: str
    supervisor_password: str
    label_studio_token: str = ""  # a personal access token, made once Label Studio runs

    @classmethod
    def generate(cls) -> Secrets:
        """Generate random secrets. The password that a person types is the shortest."""
        return cls(
            label_studio_password=secrets.token_urlsafe(9),
            redis_password=secrets.token_urlsafe(24),
            backend_password=secrets.token_urlsafe(24),
            webhook_secret=secrets.token_urlsafe(24),
            supervisor_password=secrets.token_urlsafe(24),
        )


@dataclass(frozen=True)
class Launch:
    """The settings that the running processes were started with. They are enough to start any of them again."""

    label_studio_executable: str
    ports: dict[str, int]  # label_studio, backend, redis, supervisor
    passed_through: dict[str, str]  # variables of backend and workers, by name
    place: str = ""  # the path of the state folder: if it differs later, the folder was moved or copied


@dataclass(frozen=True)
class StateFolder:
    """Paths and files of the state folder."""

    path: Path

    @property
    def logs(self) -> Path:
        """The folder with one log file per component, rotated."""
        return self.path / "logs"

    @property
    def run(self) -> Path:
        """The folder with files that are needed only while the stack runs."""
        return self.path / "run"

    def create(self) -> None:
        """Make the folder and those below it, closed to other users."""
        for folder in (self.path, self.logs, self.run, self.path / "label-studio", self.path / "redis"):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep a second `make up` or `make down` out while the block runs.

        Raises:
            StackError: another command holds the lock.
        """
        self.create()
        lock = FileLock(self.path / "lock", blocking=False)
        try:
            lock.acquire()
        except Timeout as error:
            raise StackError(f"another `make up` or `make down` runs in {self.path}; wait until it ends") from error
        try:
            yield
        finally:
            lock.release()

    def load_secrets(self) -> Secrets:
        """Return the stored secrets; the first call generates them.

        Raises:
            StackError: the file is damaged.
        """
        file = self.path / "secrets.json"
        if not file.exists():
            self.save_secrets(Secrets.generate())
        return _read(Secrets, file)

    def save_secrets(self, values: Secrets) -> None:
        """Store `values` so that only the owner can read them."""
        write_private(self.path / "secrets.json", json.dumps(asdict(values), indent=2))

    def load_launch(self) -> Launch | None:
        """Return the settings of the last start; None before the first one.

        Raises:
            StackError: the file is damaged.
        """
        file = self.path / "launch.json"
        return _read(Launch, file) if file.exists() else None

    def save_launch(self, launch: Launch) -> None:
        """Store `launch` for `stack.run` and for the next start."""
        write_private(self.path / "launch.json", json.dumps(asdict(launch), indent=2))


def _read(kind: type[T], file: Path) -> T:
    """Read a record that this release or another one wrote: unknown keys are ignored, missing ones take their default.
    Keys that an earlier release named otherwise are renamed.

    Raises:
        StackError: the file is not JSON, lacks a key without a default, or has a value of another type.
    """
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(values, dict):
            values = {_RENAMED.get(key, key): value for key, value in values.items()}
        return build_record(kind, values)
    except ValueError as error:
        raise StackError(
            f"{file} cannot be read: {error}. Restore it from a backup; or remove the whole folder to start from "
            "nothing, which also removes its projects and annotations"
        ) from error


def write_private(file: Path, text: str) -> None:
    """Write a file that only its owner can read (mode 0600), completely or not at all."""
    scratch = file.with_name(file.name + ".new")
    with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as handle:
        handle.write(text.encode("utf-8", "surrogateescape"))  # a path in the text may contain bytes that are no UTF-8
    scratch.replace(file)


def plan_launch(settings: StackSettings, previous: Launch | None, running: bool) -> Launch:
    """Choose the ports of a start: the port asked for, else the last start's, else the default, else any free port.

    Args:
        settings: the ports that a person asked for, and everything else that is started with.
        previous: the last start; None: there was none.
        running: whether the stack of the last start still runs, and therefore holds its ports itself.

    Raises:
        StackError: another program uses a port that was asked for.
    """
    kept: Mapping[str, int] = previous.ports if previous else {}
    ports: dict[str, int] = {}
    for name in (*DEFAULT_PORTS, "supervisor"):
        asked = settings.ports.get(name)
        if running and name in kept and asked in (None, 0, kept[name]):
            ports[name] = kept[name]
        elif asked:
            if not _is_free(asked):
                raise StackError(
                    f"port {asked} ({PORT_VARIABLES[name]}) is taken by another program; "
                    "choose another, or leave the variable unset for a free one"
                )
            ports[name] = asked
        else:
            wishes = [kept.get(name, 0), DEFAULT_PORTS.get(name, 0) if asked is None else 0]
            ports[name] = next(
                (port for port in wishes if port and port not in ports.values() and _is_free(port)), 0
            ) or _any_free_port(set(ports.values()))
    place = str(settings.state_dir)
    return Launch(str(settings.label_studio_executable), ports, dict(settings.passed_through), place)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # The servers set this option, too: with it, a port whose old connections are still closing counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _any_free_port(taken: set[int]) -> int:
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port not in taken:
            return port
