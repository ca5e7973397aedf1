"""Start Redis, the backend and the two workers that answer clicks as child processes, for one measurement.

They start as in `make up` (`stack/components.py`), on free ports and without Label Studio, so that `make eval-demo`
needs no running stack and does not disturb one.
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

_MEASURED = {"OSPREY_BLIND_SHARE": "0"}  # answers are measured, so none may be hidden


@dataclass(frozen=True)
class Endpoint:
    """A backend's address and credentials. `redis_url` is None for a service that was not started here."""

    backend_url: str
    user: str
    password: str
    redis_url: str | None = None


@contextmanager
def private_service(folder: Path, variables: Mapping[str, str], environ: Mapping[str, str]) -> Iterator[Endpoint]:
    """Start the service with its state and logs in `folder`; stop it at the end of the block.

    Args:
        folder: an empty folder.
        variables: `OSPREY_*` variables for backend and workers.
        environ: this process's environment; the children inherit its other variables.

    Raises:
        ServiceDidNotStartError: one of the processes does not become healthy in time.
    """
    names = ("redis", "backend", "label_studio")
    state = StateFolder(folder)
    state.create()
    # Nothing listens on Label Studio's port, because the pictures come from elsewhere.
    launch = Launch("", dict(zip(names, _free_ports(len(names)), strict=True)), {**_MEASURED, **variables})
    stack = Stack(state, launch, Secrets.generate())
    with ExitStack() as running:
        waiting = []
        for component in COMPONENTS:
            if component.name not in ("label-studio", "data", "train"):  # needed only for submitted annotations
                child = running.enter_context(started(component, stack, environ))
                if component.name == "redis":
                    wait_until_healthy(component, child, stack)
                else:
                    waiting.append((component, child))
        for component, child in waiting:
            wait_until_healthy(component, child, stack)
        yield Endpoint(stack.backend_url, BACKEND_USER, stack.secrets.backend_password, stack.redis_url)


def _free_ports(count: int) -> list[int]:
    """Find ports that are free now. All sockets stay open until every port is known, so that the ports differ."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
