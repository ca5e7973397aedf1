"""`osprey gate | promote | rollback`, `osprey models add | list`: which registered version serves."""

from __future__ import annotations

import getpass
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from registry.versions import ModelVersion, Registry
    from worker.settings import Settings

Why = Annotated[str, typer.Option(help="Kept in the history.")]
Wait = Annotated[float, typer.Option(help="Seconds to wait until the workers serve it; 0: do not wait.")]


def promote(
    version: Annotated[str, typer.Argument(help="A version's name, or `base` for OSPREY_MODEL.")],
    why: Why = "",
    wait: Wait = 60.0,
    force: Annotated[bool, typer.Option("--force", help="Also without a passed gate.")] = False,
) -> None:
    """Make a version the champion: running workers serve it from their next job on."""
    from registry.versions import BASE, RegistryError

    settings, registry = _opened()
    try:
        gate = None if version == BASE else registry.version(version).gate
        if version != BASE and not (gate and gate.get("passed")) and not force:
            reason = "has not been through the gate" if gate is None else "did not pass the gate"
            _stop(f"{version} {reason}. `osprey gate {version}` says more; --force promotes it all the same")
        champion = registry.promote(version, who=getpass.getuser(), why=why)
    except RegistryError as error:
        _stop(str(error))
    _announce(settings, champion, "serves", wait)


def rollback(why: Why = "", wait: Wait = 60.0) -> None:
    """Serve the champion from before the last promotion again."""
    from registry.versions import RegistryError

    settings, registry = _opened()
    try:
        champion = registry.rollback(who=getpass.getuser(), why=why)
    except RegistryError as error:
        _stop(str(error))
    _announce(settings, champion, "serves again", wait)


def list_versions() -> None:
    """The registered versions: the champion, data, key figures and the gate's verdict."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from registry.versions import BASE, RegistryError

    settings, registry = _opened()
    console = Console()
    try:
        champion, versions, history = registry.champion_name(), registry.versions(), registry.history()
    except RegistryError as error:
        _stop(str(error))
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
    from registry.versions import Registry
    from worker.settings import Settings

    settings = Settings.from_env(os.environ)
    if settings.registry is None:
        _stop("set OSPREY_REGISTRY to the registry's folder, the same for the workers")
    return settings, Registry(settings.registry)


def _stop(message: str) -> NoReturn:
    from rich.console import Console
    from rich.markup import escape

    Console(stderr=True).print(f"[red]{escape(message)}[/red]", soft_wrap=True)
    raise typer.Exit(1)


def _announce(settings: Settings, champion: ModelVersion | None, verb: str, wait_s: float) -> None:
    """Say what serves now, once the workers do; late ones are named."""
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
    """Shares right in the gate, the champion's in brackets; before the gate the figures of the training."""
    from learning.report.version_history import compared

    told = []
    for criterion, name in (("better", "held out"), ("base", "base set")):
        shares = compared(version.gate, criterion)
        if shares is not None:
            told.append(f"{name} {100 * shares.candidate:.1f} % right ({100 * shares.champion:.1f} %)")
    if told:
        return ", ".join(told)
    scores = {name: value for name, value in version.metrics.items() if isinstance(value, (int, float))}
    return ", ".join(f"{name} {value:.3g}" for name, value in list(scores.items())[:3])


def _verdict(gate: dict[str, Any] | None) -> str:
    if gate is None:
        return "not yet"
    return "[green]passed[/]" if gate.get("passed") else "[red]failed[/]"


def gate(
    version: Annotated[str, typer.Argument(help="The candidate.")],
    data: Annotated[Path | None, typer.Option(help="Another export version to examine it on.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Hold a version against the champion on held-out and base data; the verdict is kept with the version.

    Ends with 0 when it passed, 3 when not. With OSPREY_AUTO_PROMOTE=on a candidate that passed is promoted.
    """
    from rich.console import Console
    from rich.progress import Progress

    from job_queue.errors import OspreyError
    from learning.gate.run_gate import run_gate
    from worker.processor import pick_device

    settings, _ = _opened()
    console, errors = Console(), Console(stderr=True)
    try:
        with Progress(console=errors, transient=True) as progress:
            bars: dict[str, Any] = {}

            def show(what: str, done: int, total: int) -> None:
                if what not in bars:
                    bars[what] = progress.add_task(what, total=total)
                progress.update(bars[what], completed=done)

            device = pick_device() if device == "auto" else device
            verdict = run_gate(settings, version, data=data, device=device, on_progress=show)
    except OspreyError as error:
        _stop(str(error))
    print_verdict(console, version, verdict)
    raise typer.Exit(0 if verdict["passed"] else 3)


def print_verdict(console: Console, version: str, verdict: dict[str, Any]) -> None:
    """Every criterion of a gate's verdict, and the verdict."""
    from rich.markup import escape
    from rich.table import Table

    table = Table("", "Criterion", "Field", "What was found", title=escape(f"{version} against {verdict['champion']}"))
    for each in verdict["criteria"]:
        mark = "[green]passed[/]" if each["passed"] else "[red]failed[/]"
        table.add_row(mark, each["name"], escape(each["field"] or ""), escape(each["says"]))
    console.print(table)
    console.print(f"{escape(version)} {'passed' if verdict['passed'] else 'did not pass'} the gate.")


def add(
    folder: Annotated[Path, typer.Argument(help="A trained adapter's or a complete checkpoint's folder.")],
    name: Annotated[str | None, typer.Option(help="Default: the next of v1, v2, ...")] = None,
    base: Annotated[Path | None, typer.Option(help="An adapter's checkpoint; default: OSPREY_MODEL.")] = None,
    data: Annotated[str | None, typer.Option(help="The export version it was trained on.")] = None,
    parent: Annotated[list[str] | None, typer.Option(help="A version it was trained from.")] = None,
) -> None:
    """Copy a trained folder into the registry as a new version; what serves does not change."""
    from rich.console import Console
    from rich.markup import escape

    from osprey_model.weights.adapter import ADAPTER_CONFIG
    from osprey_model.weights.checkpoint import fingerprint
    from registry.versions import Base, RegistryError

    settings, registry = _opened()
    try:
        if (folder / ADAPTER_CONFIG).is_file():
            base = (base or settings.model).resolve()
            on = Base(str(base), fingerprint(base))
            version = registry.add(folder, "adapter", name=name, base=on, data_version=data, parents=parent or ())
        else:
            fingerprint(folder)  # refuses what is no checkpoint
            version = registry.add(folder, "checkpoint", name=name, data_version=data, parents=parent or ())
    except (RegistryError, OSError, ValueError) as error:
        _stop(str(error))
    Console().print(escape(f"{version.name}, next: osprey gate {version.name}"), soft_wrap=True)
