"""Start Redis, the backend and the two workers that answer clicks as child processes, for one measurement.

They start as `make up` starts them (`stack/components.py`), on free ports and without Label Studio, so that
`make eval-demo` needs no running stack and disturbs none.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from stack.child_processes import started, wait_until_healthy
from stack.components import BACKEND_USER, COMPONENTS, Stack
from stack.state import Launch, Secrets, StateFolder

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
            if component.name not in ("label-studio", "data", "train"):  # nothing is submitted here
                child = running.enter_context(started(component, stack, environ))
                if component.name == "redis":
                    wait_until_healthy(component, child, stack)
                else:
                    waiting.append((component, child))
        for component, child in waiting:
            wait_until_healthy(component, child, stack)
        yield Endpoint(stack.backend_url, BACKEND_USER, stack.secrets.backend_password, stack.redis_url)


def _free_ports(count: int) -> list[int]:
    """Ports that nothing listens on now; all are held until each is known, so they differ."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
