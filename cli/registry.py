"""`osprey gate | promote | rollback` and `osprey models add | list`: choose the model version that serves."""

from __future__ import annotations

import getpass
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.screen import NOT_PASSED, WRONG_USE, fail, failures, read_settings, step_bars

if TYPE_CHECKING:
    from rich.console import Console

    from learning.settings import Settings
    from registry.versions import ModelVersion, Registry

NOT_PROMOTED = "Not promoted"
Why = Annotated[str, typer.Option(help="Reason, kept in the history.")]
Wait = Annotated[float, typer.Option(help="Seconds to wait until the workers serve the version. 0: do not wait.")]


def promote(
    version: Annotated[str, typer.Argument(help="Name of a version, or base for the checkpoint of OSPREY_MODEL.")],
    why: Why = "",
    wait: Wait = 60.0,
    force: Annotated[bool, typer.Option("--force", help="Promote even if the gate was not passed.")] = False,
) -> None:
    """Make a version the champion. Running workers serve it from their next job on."""
    from registry.versions import BASE

    settings, registry = _opened()
    with failures(NOT_PROMOTED):
        gate = None if version == BASE else registry.version(version).gate
        if version != BASE and not (gate and gate.get("passed")) and not force:
            reason = "has not been through the gate" if gate is None else "did not pass the gate"
            advice = f"Run `osprey gate {version}` for the details; --force promotes it anyway"
            fail(NOT_PROMOTED, f"{version} {reason}. {advice}")
        champion = registry.promote(version, who=getpass.getuser(), why=why)
    _announce(settings, champion, "serves", wait)


def rollback(why: Why = "", wait: Wait = 60.0) -> None:
    """Make the champion from before the last promotion the champion again."""
    settings, registry = _opened()
    with failures("Not rolled back"):
        champion = registry.rollback(who=getpass.getuser(), why=why)
    _announce(settings, champion, "serves again", wait)


def list_versions() -> None:
    """List the registered model versions with their data, figures and gate. A star marks the champion."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from registry.versions import BASE

    settings, registry = _opened()
    console = Console()
    with failures("Not listed"):
        champion, versions, history = registry.champion_name(), registry.versions(), registry.history()
    table = Table("", "Version", "Made", "From", "Data", "Figures", "Gate")
    table.add_row("*" if champion == BASE else "", BASE, "", "", "", escape(settings.model.name), "")
    for version in versions:
        table.add_row(
            "*" if version.name == champion else "",
            escape(version.name),
            version.created[:16].replace("T", " "),
            escape(", ".join(version.parents)),
            escape((version.data_version or "")[:16]),
            escape(_figures(version)),
            _verdict(version.gate),
        )
    console.print(table)
    if champion not in (BASE, *(version.name for version in versions)):
        console.print(
            f"[red]The champion {escape(champion)} is not complete.[/] `osprey rollback` serves the one before."
        )
    for move in history[-5:]:
        line = f"{move.at[:16].replace('T', ' ')} {move.action} {move.source} -> {move.target} {move.who} {move.why}"
        console.print(escape(line.rstrip()), soft_wrap=True)


def _opened() -> tuple[Settings, Registry]:
    from learning.settings import Settings
    from registry.versions import Registry

    settings = read_settings(Settings)
    if settings.registry is None:
        reason = "set OSPREY_REGISTRY to the folder of trained versions, to the same folder for the workers"
        fail("No registry", reason, WRONG_USE)
    return settings, Registry(settings.registry)


def _announce(settings: Settings, champion: ModelVersion | None, verb: str, wait_s: float) -> None:
    """Wait until the workers serve the champion, and print which do and which do not yet."""
    from rich.console import Console
    from rich.markup import escape

    from job_queue.queue import JobQueue
    from registry.versions import BASE

    console, name = Console(), champion.name if champion else BASE
    queue, deadline = JobQueue(settings.redis_url, settings.queue), time.monotonic() + wait_s
    while True:
        beats = [beat for beat in queue.health().workers if "describe" in beat.queues]
        late = [beat for beat in beats if beat.serving != name]
        if not late or time.monotonic() >= deadline:
            break
        time.sleep(0.2)
    if not beats:
        console.print(f"{escape(name)} {verb} as soon as a worker runs.", soft_wrap=True)
    for beat in late:
        console.print(
            f"[yellow]{escape(beat.name)} still serves {escape(beat.model_versions.get('describe', 'nothing'))}"
            f"[/yellow] {escape(beat.problem or '(it switches between two jobs)')}",
            soft_wrap=True,
        )
    if beats and not late:
        console.print(f"{escape(name)} {verb}, in {len(beats)} of {len(beats)} workers.", soft_wrap=True)


def _figures(version: ModelVersion) -> str:
    """Return the shares of correct answers in the gate, the champion's in brackets; or those of training."""
    from learning.report.version_history import compared

    shown = []
    for criterion, name in (("better", "held out"), ("base", "base set")):
        shares = compared(version.gate, criterion)
        if shares is not None:
            shown.append(f"{name} {100 * shares.candidate:.1f} % right ({100 * shares.champion:.1f} %)")
    if shown:
        return ", ".join(shown)
    scores = {name: value for name, value in version.metrics.items() if isinstance(value, (int, float))}
    return ", ".join(f"{name} {value:.3g}" for name, value in list(scores.items())[:3])


def _verdict(gate: dict[str, Any] | None) -> str:
    if gate is None:
        return "not yet"
    return "[green]passed[/]" if gate.get("passed") else "[red]failed[/]"


def gate(
    version: Annotated[str, typer.Argument(help="Name of the candidate.")],
    data: Annotated[
        Path | None, typer.Option(help="Folder of an export version to use instead of the held-out data.")
    ] = None,
    device: Annotated[str, typer.Option(help="Device of the models: auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Compare a version with the champion on held-out data and on the base set, and keep the verdict.

    Exit code 0: all criteria passed; 3: at least one failed. With OSPREY_AUTO_PROMOTE=on a candidate that passed is
    promoted.
    """
    from rich.console import Console

    from learning.gate.run_gate import run_gate
    from registry.sets_in_making import WAITING
    from worker.processor import pick_device

    settings, _ = _opened()
    waiting = {WAITING: "Base set and replay data are being made; this waits for them."}
    with failures("The gate was not run"), step_bars(waiting) as bars:
        device = pick_device() if device == "auto" else device
        verdict = run_gate(settings, version, data=data, device=device, on_progress=bars.show)
    print_verdict(Console(), version, verdict)
    raise typer.Exit(0 if verdict["passed"] else NOT_PASSED)


def print_verdict(console: Console, version: str, verdict: dict[str, Any]) -> None:
    """Print every criterion of a gate, and its verdict."""
    from rich.markup import escape
    from rich.table import Table

    table = Table("", "Criterion", "Field", "What was found", title=escape(f"{version} against {verdict['champion']}"))
    for each in verdict["criteria"]:
        mark = "[green]passed[/]" if each["passed"] else "[red]failed[/]"
        table.add_row(mark, each["name"], escape(each["field"] or ""), escape(each["says"]))
    console.print(table)
    console.print(f"{escape(version)} {'passed' if verdict['passed'] else 'did not pass'} the gate.")


def add(
    folder: Annotated[Path, typer.Argument(help="Folder of a trained adapter, or of a complete checkpoint.")],
    name: Annotated[str | None, typer.Option(help="Name of the version. Default: the next of v1, v2, ...")] = None,
    base: Annotated[
        Path | None, typer.Option(help="Checkpoint that the adapter belongs on. Default: OSPREY_MODEL.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="Export version that it was trained on.")] = None,
    parent: Annotated[
        list[str] | None, typer.Option(help="Version that it was trained from; repeat the option for several.")
    ] = None,
) -> None:
    """Copy a trained folder into the registry as a new version. The champion stays the same."""
    from rich.console import Console
    from rich.markup import escape

    from osprey_model.weights.adapter import ADAPTER_CONFIG
    from osprey_model.weights.checkpoint import fingerprint
    from registry.versions import Base

    settings, registry = _opened()
    with failures("Not added"):
        if (folder / ADAPTER_CONFIG).is_file():
            base = (base or settings.model).resolve()
            on = Base(str(base), fingerprint(base))
            version = registry.add(folder, "adapter", name=name, base=on, data_version=data, parents=parent or ())
        else:
            fingerprint(folder)  # raises where the folder is no checkpoint
            version = registry.add(folder, "checkpoint", name=name, data_version=data, parents=parent or ())
    Console().print(escape(f"{version.name} is registered. Next: osprey gate {version.name}"), soft_wrap=True)
