"""The one folder in which the stack keeps everything: data, logs, ports, secrets.

Deleting the folder (after `make down`) is a factory reset; copying it is a backup.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from stack.settings import PORT_VARIABLES, StackError, StackSettings

# Inherited by every process of a stack: how to recognise them when their supervisor is gone.
MARK = "OSPREY_STACK_MARK"
DEFAULT_PORTS = {"label_studio": 8080, "backend": 9090, "redis": 6380}


@dataclass(frozen=True)
class Secrets:
    """Generated at the first start, kept in a file that only its owner can read."""

    label_studio_password: str
    redis_password: str
    backend_password: str
    webhook_secret: str
    supervisor_password: str
    label_studio_token: str = ""  # a personal access token, made once Label Studio runs

    @classmethod
    def generate(cls) -> Secrets:
        """New random secrets; the one a person types is short."""
        return cls(
            label_studio_password=secrets.token_urlsafe(9),
            redis_password=secrets.token_urlsafe(24),
            backend_password=secrets.token_urlsafe(24),
            webhook_secret=secrets.token_urlsafe(24),
            supervisor_password=secrets.token_urlsafe(24),
        )


@dataclass(frozen=True)
class Launch:
    """What the running processes were started with: enough to start any of them again."""

    label_studio_executable: str
    ports: dict[str, int]  # label_studio, backend, redis, supervisor
    handed_through: dict[str, str]
    place: str = ""  # the state folder's path: another one later means that it was moved or copied


@dataclass(frozen=True)
class StateFolder:
    """Paths and files of the state folder."""

    path: Path

    @property
    def logs(self) -> Path:
        """One log file per component, rotated."""
        return self.path / "logs"

    @property
    def run(self) -> Path:
        """Files that mean something only while the stack runs."""
        return self.path / "run"

    def create(self) -> None:
        """Make the folder, closed to other users."""
        for folder in (self.path, self.logs, self.run, self.path / "label-studio", self.path / "redis"):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder against a second `make up` or `make down` at the same time.

        Raises:
            StackError: another one holds it.
        """
        self.create()
        lock = FileLock(self.path / "lock", blocking=False)
        try:
            lock.acquire()
        except Timeout as error:
            raise StackError(f"another `make up` or `make down` is at work in {self.path}; wait for it") from error
        try:
            yield
        finally:
            lock.release()

    def load_secrets(self) -> Secrets:
        """The kept secrets, made at the first call."""
        file = self.path / "secrets.json"
        if not file.exists():
            self.save_secrets(Secrets.generate())
        return Secrets(**_known(Secrets, json.loads(file.read_text(encoding="utf-8"))))

    def save_secrets(self, values: Secrets) -> None:
        """Keep `values`, readable by the owner alone."""
        write_private(self.path / "secrets.json", json.dumps(asdict(values), indent=2))

    def load_launch(self) -> Launch | None:
        """What the stack was last started with; None before its first start."""
        file = self.path / "launch.json"
        return Launch(**_known(Launch, json.loads(file.read_text(encoding="utf-8")))) if file.exists() else None

    def save_launch(self, launch: Launch) -> None:
        """Keep `launch` for `stack.run` and for the next start."""
        write_private(self.path / "launch.json", json.dumps(asdict(launch), indent=2))


def _known(kind: type, written: dict[str, Any]) -> dict[str, Any]:
    """What this release knows of a record that another one may have written."""
    names = {field.name for field in fields(kind)}
    return {name: value for name, value in written.items() if name in names}


def write_private(file: Path, text: str) -> None:
    """Write a file with mode 0600, whole or not at all."""
    scratch = file.with_name(file.name + ".new")
    with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as handle:
        handle.write(text.encode("utf-8", "surrogateescape"))  # a path in it may hold any bytes
    scratch.replace(file)


def plan_launch(settings: StackSettings, previous: Launch | None, running: bool) -> Launch:
    """Decide the ports: asked for, else as last time, else the usual one, else any free one.

    Raises:
        StackError: a port that was asked for is taken by another program.
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
    return Launch(str(settings.label_studio_executable), ports, dict(settings.handed_through), place)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As the servers do it: a connection that is closing is no owner.
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
