"""`python -m stack up|down|status|logs|osprey`: the commands that the Makefile calls."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import httpx
import typer
from rich.console import Console
from rich.table import Table

from demo.truth.sample_sets import sample_sets_are_made
from job_queue.settings import name_warnings
from stack.components import BASE_SET, COMPONENTS, LOGIN, Stack, base_set_making, osprey_process
from stack.settings import SETTINGS, StackError, StackSettings, truth_folder
from stack.state import StateFolder
from stack.supervisor import Supervisor, end_leftovers
from stack.up import bring_up

if TYPE_CHECKING:
    from registry.sets_in_making import Making

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_enable=False)
console = Console()


@app.command()
def up() -> None:
    """Start everything, wait until it works, print the address and the login."""
    environ = dict(os.environ)
    for line in name_warnings(environ, SETTINGS):
        console.print(line, style="yellow", markup=False, highlight=False, soft_wrap=True)
    bring_up(StackSettings.from_env(environ), environ, console)


@app.command()
def down() -> None:
    """Stop everything; the state folder keeps projects and annotations."""
    state = StateFolder(StackSettings.from_env(os.environ).state_dir)
    if not state.path.exists():
        console.print("Nothing to stop: the stack never ran here.")
        return
    with state.locked(), console.status("Stopping"):
        supervisor = _supervisor(state)
        was_running = supervisor is not None and supervisor.is_running()
        if supervisor is not None and was_running:
            supervisor.stop()
        launch = state.load_launch()
        leftovers = end_leftovers(state, () if launch is None else (launch.place,))
    console.print("Stopped." if was_running or leftovers else "Nothing was running.")


@app.command()
def status() -> None:
    """Show what runs and whether it works. Exit code 1: a part does not work."""
    state = StateFolder(StackSettings.from_env(os.environ).state_dir)
    supervisor = _supervisor(state)
    launch = state.load_launch()
    if supervisor is None or launch is None or not supervisor.is_running():
        console.print("The stack is down. `make up` starts it.")
        raise typer.Exit(1)
    stack = Stack(state, launch, state.load_secrets())
    table = Table("component", "process", "pid", "health")
    problems = {each.name: each.problem(stack) for each in COMPONENTS}
    for each in COMPONENTS:
        process_state, pid = supervisor.component_state(each.name), supervisor.component_pid(each.name)
        table.add_row(each.title, process_state.lower(), str(pid or "-"), problems[each.name] or "works")
    if (outdated := supervisor.outdated()) is not None:
        problems["supervisor"] = f"This stack has to be replaced, `make up` does it: {outdated}."
        console.print(problems["supervisor"], highlight=False)
    sets, folder = base_set_making(stack), truth_folder(state.path, launch.passed_through)
    if outdated is None and folder is not None:
        process = supervisor.process_state(BASE_SET)
        idle = "ready" if sample_sets_are_made(folder) else "not started: `make up` starts it once clicks work"
        progress = idle if sets is None else sets.text
        table.add_row("Base set", process.name.lower(), str(process.pid or "-"), progress)
    console.print(table)
    if sets is not None:
        console.print(_about_sets(state, sets), highlight=False)
    console.print(f"{stack.label_studio_url}  log in as {LOGIN}  password {stack.secrets.label_studio_password}")
    if any(problems.values()) or (sets is not None and sets.is_given_up):
        raise typer.Exit(1)


def _about_sets(state: StateFolder, sets: Making) -> str:
    if sets.is_given_up:
        log = state.logs / f"{BASE_SET}.log"
        return f"No fine-tune starts without base set and replay data; `make up` makes them again. See {log}"
    return "Clicks work. A fine-tune and its gate wait until base set and replay data are made."


@app.command()
def logs() -> None:
    """Follow the logs of every component until Ctrl-C."""
    state = StateFolder(StackSettings.from_env(os.environ).state_dir)
    files: list[Path] = sorted(state.logs.glob("*.log")) if state.logs.exists() else []
    if not files:
        raise StackError(f"no logs in {state.logs} yet; start the stack with `make up`")
    try:
        subprocess.run(["tail", "-n", "20", "-F", *map(str, files)], check=False)
    except KeyboardInterrupt:
        return


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def osprey(context: typer.Context) -> None:
    """Run `osprey ...` with the addresses and secrets of this stack."""
    state = StateFolder(StackSettings.from_env(os.environ).state_dir)
    launch = state.load_launch()
    if launch is None:
        raise StackError("the stack never ran here; start it with `make up`")
    process = osprey_process(Stack(state, launch, state.load_secrets()), *context.args)
    os.execve(process.command[0], process.command, {**os.environ, **process.environment})


def _supervisor(state: StateFolder) -> Supervisor | None:
    launch = state.load_launch()
    return Supervisor(Stack(state, launch, state.load_secrets())) if launch else None


def main() -> None:
    """Run a command. Errors that a person can correct are printed without a traceback."""
    try:
        app()
    except httpx.HTTPError as error:
        _stop(f"Label Studio does not answer ({type(error).__name__}: {error}); `make logs` shows its log")
    except StackError as error:
        _stop(str(error))


def _stop(message: str) -> NoReturn:
    console.print(message, style="red", markup=False, highlight=False, soft_wrap=True)
    sys.exit(1)


if __name__ == "__main__":
    main()
