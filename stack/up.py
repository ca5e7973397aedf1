"""Start the stack step by step, with one progress line per component."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from functools import partial

from rich.console import Console
from rich.panel import Panel
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from demo.truth.sample_sets import sample_sets_are_made
from registry.sets_in_making import plan
from stack.child_processes import backend_address, with_token
from stack.components import CLICK_COMPONENTS, COMPONENTS, LOGIN, Stack
from stack.sample_project import ensure_project
from stack.settings import StackSettings
from stack.starting import Starter
from stack.state import StateFolder, plan_launch
from stack.supervisor import Supervisor, end_leftovers
from worker.label_studio.api import LabelStudioApi

_OTHER_COMPONENTS = ("data", "train")  # a click does not need these


def bring_up(settings: StackSettings, environ: Mapping[str, str], console: Console) -> None:
    """Start every component that does not run, make the sample project, and print the address and the first steps.

    Base set and replay data, which only a fine-tune needs, are made after that in the background.

    Raises:
        StackError: a component does not start; the message ends with the last lines of its log.
    """
    started = time.monotonic()
    settings.check_label_studio()
    state = StateFolder(settings.state_dir)
    with state.locked():
        stack, supervisor = supervised(settings, state, environ, console)
        with _progress(console) as progress:
            lines = {each.name: progress.add_task(each.title, total=1, note="waiting") for each in COMPONENTS}
            project_line = progress.add_task("Sample project", total=1, note="waiting")
            starter = Starter(stack, supervisor)

            def start(names: Iterable[str]) -> None:
                for each in COMPONENTS:
                    if each.name in names:
                        starter.start(each)

            def wait(names: Iterable[str]) -> None:
                for each in COMPONENTS:
                    if each.name in names:
                        line = lines[each.name]
                        progress.reset(line, start=True)
                        starter.wait(each, partial(_note, progress, line))
                        progress.update(line, completed=1, note="works")

            start(["redis"])
            wait(["redis"])
            start(["label-studio"])
            if stack.secrets.label_studio_token:
                start(CLICK_COMPONENTS)  # in parallel with Label Studio; at the first start they have no token yet
            wait(["label-studio"])
            stack = with_token(stack)
            starter = starter.with_stack(stack)
            start(CLICK_COMPONENTS)
            wait(CLICK_COMPONENTS)
            start(_OTHER_COMPONENTS)  # in parallel with the sample project
            project_id = _sample_project(stack, progress, project_line)
            wait(_OTHER_COMPONENTS)
        makes_sets = _start_base_set(settings, supervisor, console)
    console.print(_welcome(stack, project_id, time.monotonic() - started, makes_sets=makes_sets))


def supervised(
    settings: StackSettings, state: StateFolder, environ: Mapping[str, str], console: Console
) -> tuple[Stack, Supervisor]:
    """Return the stack with a running supervisor that this release started from this checkout.

    A supervisor that another release or another checkout started is replaced.

    Raises:
        StackError: another program uses a port that was asked for, or the supervisor does not start.
    """
    secrets, previous = state.load_secrets(), state.load_launch()
    before = None if previous is None else Supervisor(Stack(state, previous, secrets))
    running = before is not None and before.is_running()
    places = {"" if previous is None else previous.place}
    if before is not None and running and (why := before.outdated()) is not None:
        console.print(f"The running stack is replaced: {why}. Projects and annotations stay.", highlight=False)
        places.add(str(before.place() or ""))
        before.stop()
        running = False
    if not running:
        end_leftovers(state, places)
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


def _note(progress: Progress, line: TaskID, state: str) -> None:
    progress.update(line, note=state)


def _start_base_set(settings: StackSettings, supervisor: Supervisor, console: Console) -> bool:
    """Start making base set and replay data where they are not complete; return whether they are being made."""
    if settings.truth is None or sample_sets_are_made(settings.truth):
        return False
    try:
        plan(settings.truth)
    except OSError as error:  # not an error of `make up`: clicks work without them
        console.print(f"Base set and replay data cannot be made: {error}", style="red", markup=False)
        return False
    supervisor.start_base_set()
    return True


def _sample_project(stack: Stack, progress: Progress, line: TaskID) -> int:
    progress.reset(line, start=True)
    api = LabelStudioApi(stack.label_studio_url, stack.secrets.label_studio_token)
    try:
        project_id = ensure_project(api, backend_address(stack), lambda note: progress.update(line, note=note))
    finally:
        api.close()
    progress.update(line, completed=1, note="ready")
    return project_id


def _welcome(stack: Stack, project_id: int, elapsed_s: float, *, makes_sets: bool) -> Panel:
    background = "\n\nBase set and replay data are made in the background; a fine-tune waits for them (make status)."
    return Panel(
        f"[bold]{stack.label_studio_url}/projects/{project_id}/data[/bold]\n"
        f"log in as  {LOGIN}  password  {stack.secrets.label_studio_password}\n\n"
        "1. Open the first scene.\n"
        "2. Once per browser: switch on [bold]Auto-Annotation[/bold] in the bar at the bottom, "
        "then [bold]Auto-Accept Suggestions[/bold] beside it.\n"
        "3. Pick the smart point tool (last group of the toolbar, key [bold]K[/bold]) and click an object.\n"
        "4. Select the new region: its fields are filled in. Correct what is wrong and submit.\n\n"
        "make down stops everything and keeps your work; make logs shows what happens."
        + (background if makes_sets else ""),
        title=f"Ready after {elapsed_s:.0f} s",
        expand=False,
    )
