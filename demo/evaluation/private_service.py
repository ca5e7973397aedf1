"""Redis, the backend and two workers of one's own: child processes on free ports, stopped at the end.

They are started exactly as `make up` starts them (`demo.stack.components`), without Label Studio,
so that `make eval-demo` needs no running stack and disturbs none.
"""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from demo.stack.components import BACKEND_USER, COMPONENTS, Component, Stack
from demo.stack.settings import CHECKOUT
from demo.stack.state import MARK, Launch, Secrets, StateFolder

_STOP_LIMIT_S = 15.0
_PATIENCE = 3  # times what `make up` allows: nobody waits for a page here, and the machine may be busy
_LOG_TAIL_LINES = 15


class ServiceDidNotStartError(Exception):
    """A child process ended or did not become healthy; the message holds the end of its log."""


_MEASURED = {"OSPREY_BLIND_SHARE": "0"}  # the words are what is measured


@dataclass(frozen=True)
class Endpoint:
    """Where the backend listens and what it asks for. `redis_url` is None for a service that is not ours."""

    backend_url: str
    user: str
    password: str
    redis_url: str | None = None


@contextmanager
def private_service(folder: Path, told: Mapping[str, str], environ: Mapping[str, str]) -> Iterator[Endpoint]:
    """Start the service with its state and logs in `folder`.

    Args:
        told: `OSPREY_*` variables for backend and workers.
        environ: this process's environment, of which the children get what is not ours.

    Raises:
        ServiceDidNotStartError: one of its processes does not work within its time.
    """
    names = ("redis", "backend", "label_studio")
    state = StateFolder(folder)
    state.create()
    # No Label Studio listens on its port: the pictures come from elsewhere.
    launch = Launch("", dict(zip(names, _free_ports(len(names)), strict=True)), {**_MEASURED, **told})
    stack = Stack(state, launch, Secrets.generate())
    with ExitStack() as running:
        waiting = []
        for component in COMPONENTS:
            if component.name not in ("label-studio", "data"):  # nothing is submitted here
                child = running.enter_context(started(component, stack, environ))
                if component.name == "redis":
                    wait_until_healthy(component, child, stack)
                else:
                    waiting.append((component, child))
        for component, child in waiting:
            wait_until_healthy(component, child, stack)
        yield Endpoint(stack.backend_url, BACKEND_USER, stack.secrets.backend_password, stack.redis_url)


@contextmanager
def started(component: Component, stack: Stack, environ: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A component as a child process, ended at the end of the block.

    It carries the stack's mark, so that `end_leftovers` finds it when this process was killed.
    """
    process = component.process(stack)
    inherited = {key: value for key, value in environ.items() if process.inherited(key)}
    with _log(component, stack).open("wb") as log:
        child = subprocess.Popen(
            process.command,
            env={**inherited, **process.environment, MARK: str(stack.state.path)},
            cwd=CHECKOUT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches us first; the children are ended in order
        )
    try:
        yield child
    finally:
        child.terminate()
        try:
            child.wait(_STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def wait_until_healthy(component: Component, child: subprocess.Popen[bytes], stack: Stack) -> None:
    """Return when the component works.

    Raises:
        ServiceDidNotStartError: it ended, or does not work within its time.
    """
    deadline = time.monotonic() + _PATIENCE * component.start_limit_s
    while (problem := component.problem(stack)) is not None:
        if child.poll() is not None or time.monotonic() > deadline:
            lines = _log(component, stack).read_text(errors="replace").splitlines()[-_LOG_TAIL_LINES:]
            state = f"ended with code {child.returncode}" if child.poll() is not None else "is not healthy in time"
            raise ServiceDidNotStartError(
                f"{component.title} {state} ({problem}); the end of its log:\n" + "\n".join(lines)
            )
        time.sleep(0.2)


def _log(component: Component, stack: Stack) -> Path:
    return stack.state.logs / f"{component.name}.log"


def _free_ports(count: int) -> list[int]:
    """Ports that nothing listens on now; all are held until each is known, so they differ."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
