"""A one-machine stack of the simulation's own: Label Studio, Redis, backend and workers on free ports.

The components are those of `make up` (`demo/stack/components.py`), as children of this process: they end with it, and
what a killed simulation left behind is ended by the next one. Everything it keeps is in its state folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from demo.evaluation.private_service import started, wait_until_healthy
from demo.stack.components import BACKEND_USER, COMPONENTS, LOGIN, Stack
from demo.stack.label_studio_api import make_token, token_works
from demo.stack.sample_project import BackendAddress
from demo.stack.settings import PORT_VARIABLES, StackSettings
from demo.stack.state import StateFolder, plan_launch
from demo.stack.supervisor import end_leftovers

_FIRST = ("redis", "label-studio")  # the workers' token is made with Label Studio


@contextmanager
def own_stack(
    folder: Path, told: Mapping[str, str], environ: Mapping[str, str], on_start: Callable[[str], None]
) -> Iterator[Stack]:
    """The running stack; stopped at the end of the block, its projects and annotations stay in `folder`.

    Args:
        folder: its state folder; one that is there is continued.
        told: `OSPREY_*` variables for backend and workers.
        environ: this process's environment.
        on_start: called with the title of each component before it is waited for.

    Raises:
        StackError: Label Studio is not installed, or another simulation runs in `folder`.
        ServiceDidNotStartError: a component does not come up; the message holds the end of its log.
    """
    settings = replace(
        StackSettings.from_env(environ),
        state_dir=folder.absolute(),
        ports=dict.fromkeys(PORT_VARIABLES, 0),
        handed_through=dict(told),
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
        stack = _with_token(stack)
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
    """Where Label Studio finds this stack's backend, with its credentials."""
    secrets = stack.secrets
    return BackendAddress(stack.backend_url, BACKEND_USER, secrets.backend_password, secrets.webhook_secret)


def _with_token(stack: Stack) -> Stack:
    if token_works(stack.label_studio_url, stack.secrets.label_studio_token):
        return stack
    token = make_token(stack.label_studio_url, LOGIN, stack.secrets.label_studio_password)
    secrets = replace(stack.secrets, label_studio_token=token)
    stack.state.save_secrets(secrets)
    return replace(stack, secrets=secrets)
