"""Entry of `python -m bench.loop`: the whole learning loop with a simulated annotator, on its own stack."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

app = typer.Typer(add_completion=False)


@app.command()
def simulate(
    out: Annotated[Path, typer.Option(help="Folder for all files; a simulation in it is continued.")],
    rounds: Annotated[
        int, typer.Option(min=1, max=9, help="Number of fine-tunes; there is one more round of annotation.")
    ] = 3,
    regions: Annotated[int, typer.Option(min=1, help="Number of regions to submit in each round.")] = 300,
    seed: Annotated[int, typer.Option(min=0, max=99, help="Random seed for pictures, shuffling and training.")] = 0,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Optimizer steps of each fine-tune; default: depends on the checkpoint.")
    ] = None,
    base_scenes: Annotated[int, typer.Option(min=1, help="Number of pictures in the frozen base set.")] = 24,
) -> None:
    """Measure how many corrections a simulated team makes, round by round, as a model learns the team's terms.

    Starts its own Label Studio, Redis, backend and workers and stops them at
    the end. The last line is JSON.

    Goals: corrections of the team's own terms fall by at least 60 %, the frozen
    base set loses at most one percentage point, and the gate rejects a control
    that was trained on shuffled corrections.

    Exit codes: 0 all goals reached, 1 a goal missed, 2 could not run.
    """
    import json
    import time

    from rich.console import Console
    from rich.markup import escape

    from bench.loop.annotating import NotCollectedError
    from bench.loop.commands import CommandFailedError
    from bench.loop.outcome import fields_table, goal_lines, rounds_table
    from bench.loop.plan import Plan
    from bench.loop.progress_file import SimulationDiffersError
    from bench.loop.simulation import simulate as run_simulation
    from bench.service.machine import hardware, versions
    from job_queue.errors import OspreyError
    from stack.child_processes import ServiceDidNotStartError
    from stack.settings import StackError

    console, errors = Console(), Console(stderr=True)
    signal.signal(signal.SIGTERM, _stop)  # so that all child processes are stopped too
    started = time.monotonic()
    try:
        plan = Plan(out, rounds, regions, seed, steps, base_scenes)
        with _progress(errors) as progress:
            outcome, seconds = run_simulation(plan, dict(os.environ), _Bars(progress))
    except (
        ValueError,
        OSError,
        OspreyError,
        StackError,
        ServiceDidNotStartError,
        CommandFailedError,
        NotCollectedError,
        SimulationDiffersError,
    ) as error:
        errors.print(f"[red]The simulation stopped:[/red] {escape(str(error))}", soft_wrap=True)
        errors.print("Run the same command again to continue it.")
        raise typer.Exit(2) from error
    console.print(rounds_table(outcome))
    console.print(fields_table(outcome))
    for line in goal_lines(outcome):
        console.print(line, soft_wrap=True)
    _point_to(console, plan.report)
    result = {
        "subject": "learning loop with a simulated annotator",
        **plan.settings(),
        **outcome.to_json(),
        "seconds": {
            "this_call": round(time.monotonic() - started, 1),
            "this_call_cpu": round(_cpu_seconds(), 1),  # divided by 2 cores: the time on an idle machine
            "phases": round(sum(seconds.values()), 1),
        },
        "seconds_by_phase": seconds,
        "report": plan.report.name,  # beside result.json
        "hardware": hardware(),
        "versions": versions(),
    }
    (out / "result.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    typer.echo(json.dumps(result))
    raise typer.Exit(0 if outcome.reached else 1)


def _cpu_seconds() -> float:
    """Return the CPU time of this process and of all child processes that have ended."""
    import resource

    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def _point_to(console: Console, report: Path) -> None:
    from rich.markup import escape

    console.print(f"Report: {escape(str(report))}", soft_wrap=True)


def _progress(console: Console) -> Progress:
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<32}"), BarColumn(), TextColumn("{task.fields[note]}"))
    return Progress(*columns, TimeElapsedColumn(), console=console)


class _Bars:
    """Progress bars, one per step; without a terminal, one line when a step begins."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._line: TaskID | None = None

    def step(self, what: str) -> None:
        """Mark the step before as done and begin another one."""
        if not self._progress.console.is_terminal:
            self._progress.console.print(what, highlight=False)
        if self._line is not None:
            self._progress.update(self._line, total=1, completed=1, note="done")
            self._progress.stop_task(self._line)
        self._line = self._progress.add_task(what, total=None, note="")

    def count(self, done: int, total: int) -> None:
        """Show a step's progress; a bar if the total is known."""
        assert self._line is not None, "a step begins before it is counted"
        note = f"{done} of {total}" if total else ""
        self._progress.update(self._line, total=total or None, completed=done, note=note)


def _stop(_number: int, _frame: object) -> NoReturn:
    raise SystemExit(143)


if __name__ == "__main__":
    app(prog_name="python -m bench.loop")
