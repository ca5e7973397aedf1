"""Run the components of `make up` as child processes of this one, on free ports, for a measurement or a simulation.

They end with this process. If it is killed, the next `own_stack` on the same folder ends its processes first. Projects,
annotations and logs are kept in the state folder.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from stack.components import BACKEND_USER, COMPONENTS, LOGIN, Component, Stack
from stack.label_studio_token import make_token, token_works
from stack.settings import CHECKOUT, PORT_VARIABLES, StackSettings
from stack.state import MARK, StateFolder, plan_launch
from stack.supervisor import end_leftovers
from worker.label_studio.connection import BackendAddress

_STOP_LIMIT_S = 15.0
_START_LIMIT_FACTOR = 3  # times the limit of `make up`: the machine may be busy with the measurement itself
_LOG_TAIL_LINES = 15

_FIRST = ("redis", "label-studio")  # the workers need a token, and only a running Label Studio can make it


@contextmanager
def own_stack(
    folder: Path, variables: Mapping[str, str], environ: Mapping[str, str], on_start: Callable[[str], None]
) -> Iterator[Stack]:
    """Start a stack for the duration of the block. Its projects and annotations stay in `folder`.

    Args:
        folder: the state folder. If it exists, its projects and annotations are used again.
        variables: `OSPREY_*` variables for backend and workers.
        environ: this process's environment.
        on_start: called with the title of each component before the wait for it begins.

    Raises:
        StackError: Label Studio is not installed, or another simulation runs in `folder`.
        ServiceDidNotStartError: a component does not start; the message holds the end of its log.
    """
    settings = replace(
        StackSettings.from_env(environ),
        state_dir=folder.absolute(),
        ports=dict.fromkeys(PORT_VARIABLES, 0),
        passed_through=dict(variables),
    )
    settings.check_label_studio()
    state = StateFolder(settings.state_dir)
    with state.locked(), ExitStack() as running:
        end_leftovers(state)
        launch = plan_launch(settings, state.load_launch(), running=False)
        state.save_launch(launch)
        stack = Stack(state, launch, state.load_secrets())
        for component in COMPONENTS:
            if component.name in _FIRST:
                on_start(component.title)
                wait_until_healthy(component, running.enter_context(started(component, stack, environ)), stack)
        stack = with_token(stack)
        waiting = [
            (each, running.enter_context(started(each, stack, environ)))
            for each in COMPONENTS
            if each.name not in _FIRST
        ]
        for component, child in waiting:
            on_start(component.title)
            wait_until_healthy(component, child, stack)
        yield stack


def backend_address(stack: Stack) -> BackendAddress:
    """Return the address at which Label Studio reaches this stack's backend, with the credentials."""
    secrets = stack.secrets
    return BackendAddress(stack.backend_url, BACKEND_USER, secrets.backend_password, secrets.webhook_secret)


def with_token(stack: Stack) -> Stack:
    """Return the stack with a personal access token that Label Studio accepts; store a new one for the next start."""
    if token_works(stack.label_studio_url, stack.secrets.label_studio_token):
        return stack
    token = make_token(stack.label_studio_url, LOGIN, stack.secrets.label_studio_password)
    secrets = replace(stack.secrets, label_studio_token=token)
    stack.state.save_secrets(secrets)
    return replace(stack, secrets=secrets)


class ServiceDidNotStartError(Exception):
    """A child process ended or did not become healthy; the message holds the end of its log."""


@contextmanager
def started(component: Component, stack: Stack, environ: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a component as a child process until the end of the block.

    Its environment contains the stack's mark, so that `end_leftovers` finds it after this process was killed.
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
            start_new_session=True,  # Ctrl-C must reach only this process, which ends its children in order
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
    """Wait until the component works.

    Raises:
        ServiceDidNotStartError: it ended, or it does not work within its time limit.
    """
    deadline = time.monotonic() + _START_LIMIT_FACTOR * component.start_limit_s
    while (problem := component.problem(stack)) is not None:
        if child.poll() is not None or time.monotonic() > deadline:
            lines = _log(component, stack).read_text(errors="replace").splitlines()[-_LOG_TAIL_LINES:]
            state = f"ended with code {child.returncode}" if child.poll() is not None else "did not work in time"
            raise ServiceDidNotStartError(
                f"{component.title} {state} ({problem}); the end of its log:\n" + "\n".join(lines)
            )
        time.sleep(0.2)


def _log(component: Component, stack: Stack) -> Path:
    return stack.state.logs / f"{component.name}.log"
