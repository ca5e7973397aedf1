"""`python -m bench.loop`: run the whole learning loop with a simulated annotator, on a stack of its own."""

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
    out: Annotated[Path, typer.Option(help="Everything goes here; a simulation that is there is continued.")],
    rounds: Annotated[int, typer.Option(min=1, max=9, help="Fine-tunes; annotators work once more than that.")] = 3,
    regions: Annotated[int, typer.Option(min=1, help="Regions submitted in each round.")] = 300,
    seed: Annotated[int, typer.Option(min=0, max=99, help="Of pictures, shuffling and training.")] = 0,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Optimizer steps of each fine-tune; default: what suits the checkpoint.")
    ] = None,
    base_scenes: Annotated[int, typer.Option(min=1, help="Pictures of the frozen base set.")] = 24,
) -> None:
    """Let a simulated team correct a model that does not know its words, round after round, and measure what it costs.

    Starts Label Studio, Redis, backend and workers of its own and stops them at the end. The last line is JSON. Ends
    with 0 when corrections for the team's own words fell by at least 60 %, the frozen base set lost at most one point
    and a control that learned shuffled corrections did not pass the gate; else with 1, with 2 when it could not run.
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
    from stack.errors import StackError

    console, errors = Console(), Console(stderr=True)
    signal.signal(signal.SIGTERM, _stop)  # so that what was started is stopped, too
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
        errors.print("The same command continues it.")
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
            "this_call_cpu": round(_cpu_seconds(), 1),  # by 2 cores: what it takes where nobody else works
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
    """Of this process and of everything it has started and stopped."""
    import resource

    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def _point_to(console: Console, report: Path) -> None:
    from rich.markup import escape

    console.print(f"The report: {escape(str(report))}", soft_wrap=True)


def _progress(console: Console) -> Progress:
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<32}"), BarColumn(), TextColumn("{task.fields[note]}"))
    return Progress(*columns, TimeElapsedColumn(), console=console)


class _Bars:
    """A line per step; on no terminal, a plain line when it begins."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._line: TaskID | None = None

    def step(self, what: str) -> None:
        """The step before is done, another one begins."""
        if not self._progress.console.is_terminal:
            self._progress.console.print(what, highlight=False)
        if self._line is not None:
            self._progress.update(self._line, total=1, completed=1, note="done")
            self._progress.stop_task(self._line)
        self._line = self._progress.add_task(what, total=None, note="")

    def count(self, done: int, total: int) -> None:
        """A bar where the end is known."""
        assert self._line is not None, "a step begins before it is counted"
        note = f"{done} of {total}" if total else ""
        self._progress.update(self._line, total=total or None, completed=done, note=note)


def _stop(_number: int, _frame: object) -> NoReturn:
    raise SystemExit(143)


if __name__ == "__main__":
    app(prog_name="python -m bench.loop")
