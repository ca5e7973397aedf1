"""Bring the stack up, step by step, each step with a line that moves while it waits."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.panel import Panel
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from stack.components import BACKEND_USER, COMPONENTS, LOGIN, Component, Stack
from stack.errors import StackError
from stack.label_studio_token import make_token, token_works
from stack.sample_project import ensure_project
from stack.settings import CHECKOUT, StackSettings
from stack.state import StateFolder, plan_launch
from stack.supervisor import STOP_LIMIT_S, Supervisor, end_leftovers
from worker.label_studio.api import LabelStudioApi
from worker.label_studio.connection import BackendAddress

LOG_LINES = 15
_BASE_SET_LIMIT_S = 600.0


def bring_up(settings: StackSettings, environ: Mapping[str, str], console: Console) -> None:
    """Start what does not run, wait until all of it works, make the sample project, say what to do first.

    Raises:
        StackError: a component does not come up; the message ends with its last log lines.
    """
    started = time.monotonic()
    settings.check_label_studio()
    state = StateFolder(settings.state_dir)
    with state.locked():
        stack, supervisor = _supervised(settings, state, environ)
        with _progress(console) as progress, ExitStack() as begun:
            lines = {each.name: progress.add_task(each.title, total=1, note="waiting") for each in COMPONENTS}
            project_line = progress.add_task("Sample project", total=1, note="waiting")
            # Beside Label Studio, which takes longer.
            wait_for_base_set = begun.enter_context(_base_set_beside(settings, stack, progress))
            # The workers' token is made with Label Studio, so the rest starts after it, side by side.
            first, rest = COMPONENTS[:2], COMPONENTS[2:]
            for component in first:
                supervisor.start_component(component.name)
                _wait(stack, supervisor, component, progress, lines[component.name])
            stack = _with_token(stack)
            supervisor = Supervisor(stack)
            for component in rest:
                supervisor.start_component(component.name)
            for component in rest:
                _wait(stack, supervisor, component, progress, lines[component.name])
            project_id = _sample_project(stack, progress, project_line)
            wait_for_base_set()
    console.print(_welcome(stack, project_id, time.monotonic() - started))


def _supervised(settings: StackSettings, state: StateFolder, environ: Mapping[str, str]) -> tuple[Stack, Supervisor]:
    secrets, previous = state.load_secrets(), state.load_launch()
    running = previous is not None and Supervisor(Stack(state, previous, secrets)).is_running()
    if not running:
        end_leftovers(state)
    launch = plan_launch(settings, previous, running)
    state.save_launch(launch)
    stack = Stack(state, launch, secrets)
    supervisor = Supervisor(stack)
    if not running:
        supervisor.start(environ)
    return stack, supervisor


def _progress(console: Console) -> Progress:
    return Progress(
        SpinnerColumn(finished_text="[green]✓[/green]"),
        TextColumn("{task.description:<18}"),
        TextColumn("{task.fields[note]}", style="dim"),
        TimeElapsedColumn(),
        console=console,
    )


def _wait(stack: Stack, supervisor: Supervisor, component: Component, progress: Progress, line: TaskID) -> None:
    progress.reset(line, start=True)
    deadline = time.monotonic() + component.start_limit_s
    while (problem := component.problem(stack)) is not None:
        process_state = supervisor.component_state(component.name)
        progress.update(line, note=process_state.lower())
        if time.monotonic() > deadline:
            log = stack.state.logs / f"{component.name}.log"
            raise StackError(
                f"{component.title} does not work after {component.start_limit_s:.0f} s "
                f"(process {process_state}): {problem}\nThe end of {log}:\n{_tail(log)}"
            )
        time.sleep(0.25)
    progress.update(line, completed=1, note="works")


@contextmanager
def _base_set_beside(settings: StackSettings, stack: Stack, progress: Progress) -> Iterator[Callable[[], None]]:
    """Make base set and replay data, without which no fine-tune passes the gate, while the block runs.

    The block calls what it is given to wait for them. Nothing is made where they are there, or others are named.
    """
    if settings.truth is None or all((settings.truth / name).exists() for name in ("base", "replay")):
        yield lambda: None
        return
    line = progress.add_task("Base set", total=1, note="drawing scenes")
    log = stack.state.logs / "truth.log"
    with log.open("wb") as file:
        command = (sys.executable, "-m", "demo.truth", str(settings.truth))
        child = subprocess.Popen(command, cwd=CHECKOUT, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT)

    def wait() -> None:
        try:
            ended = child.wait(_BASE_SET_LIMIT_S)
        except subprocess.TimeoutExpired:
            ended = None
        if ended != 0:
            why = f"not done after {_BASE_SET_LIMIT_S:.0f} s" if ended is None else f"exit code {ended}"
            raise StackError(f"base set and replay data were not made ({why})\nThe end of {log}:\n{_tail(log)}")
        progress.update(line, completed=1, note="ready")

    try:
        yield wait
    finally:
        if child.poll() is None:
            child.kill()  # what it has not finished is a hidden folder, which the next call clears
            child.wait(STOP_LIMIT_S)


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-LOG_LINES:]) if log.exists() else "(empty)"


def _with_token(stack: Stack) -> Stack:
    """The stack with a personal access token that Label Studio accepts, kept for the next start."""
    if token_works(stack.label_studio_url, stack.secrets.label_studio_token):
        return stack
    token = make_token(stack.label_studio_url, LOGIN, stack.secrets.label_studio_password)
    secrets = replace(stack.secrets, label_studio_token=token)
    stack.state.save_secrets(secrets)
    return replace(stack, secrets=secrets)


def _sample_project(stack: Stack, progress: Progress, line: TaskID) -> int:
    progress.reset(line, start=True)
    api = LabelStudioApi(stack.label_studio_url, stack.secrets.label_studio_token)
    address = BackendAddress(
        stack.backend_url, BACKEND_USER, stack.secrets.backend_password, stack.secrets.webhook_secret
    )
    try:
        project_id = ensure_project(api, address, lambda note: progress.update(line, note=note))
    finally:
        api.close()
    progress.update(line, completed=1, note="ready")
    return project_id


def _welcome(stack: Stack, project_id: int, elapsed_s: float) -> Panel:
    return Panel(
        f"[bold]{stack.label_studio_url}/projects/{project_id}/data[/bold]\n"
        f"log in as  {LOGIN}  password  {stack.secrets.label_studio_password}\n\n"
        "1. Open the first scene.\n"
        "2. Once per browser: switch on [bold]Auto-Annotation[/bold] in the bar at the bottom, "
        "then [bold]Auto-Accept Suggestions[/bold] beside it.\n"
        "3. Pick the smart point tool (last group of the toolbar, key [bold]K[/bold]) and click an object.\n"
        "4. Select the new region: its fields are filled in. Correct what is wrong and submit.\n\n"
        "make down stops everything and keeps your work; make logs shows what happens.",
        title=f"Ready after {elapsed_s:.0f} s",
        expand=False,
    )
