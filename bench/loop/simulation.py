"""The learning loop from end to end with a simulated annotator: annotate, collect, fine-tune, gate, promote, again.

Only the annotator is simulated. All else is the product: Label Studio's API and webhooks, the workers, the correction
store, `osprey finetune`, the gate, the registry, and the running workers' switch to a new champion.
"""

from __future__ import annotations

import dataclasses
import itertools
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from bench.loop.annotating import annotate, wait_until_collected
from bench.loop.commands import run_osprey
from bench.loop.outcome import Outcome, RoundOutcome
from bench.loop.plan import Plan
from bench.loop.progress_file import ProgressFile
from bench.loop.shuffled import shuffled
from bench.loop.tally import Seen
from bench.loop.team_project import TeamProject
from demo.small_models import OSPREY_NANO, SAM_NANO
from demo.truth.sets import write_truth_set
from label_config.ready_configs import BITMASK
from learning.corrections.store import Store
from learning.corrections.stored_submissions import submissions_of_store
from learning.export.version import ExportOptions, export_version
from learning.gate.gate import Bounds
from learning.settings import Settings
from learning.training.held_out import held_out_share
from registry.versions import ModelVersion, Registry
from stack.child_processes import own_stack
from stack.components import Stack
from worker.images.resolver import ImageResolver

# Project numbers of the sets. No project of a new Label Studio has such a number.
_REPLAY_PROJECT, _BASE_PROJECT, _CONTROL_PROJECT = 900_001, 900_002, 900_003


class _StoppedError(Exception):
    """The simulation has ended, so the control beside it stops."""


class Screen(Protocol):
    """Where progress is shown; the command passes its progress bars."""

    def step(self, what: str) -> None:
        """Begin another step."""

    def count(self, done: int, total: int) -> None:
        """Show how much of the step is done; `total` 0: unknown."""


@dataclass(frozen=True)
class _Site:
    """The objects that every phase needs."""

    plan: Plan
    stack: Stack
    project: TeamProject
    store: Store
    settings: Settings
    environ: Mapping[str, str]
    screen: Screen


def simulate(plan: Plan, environ: Mapping[str, str], screen: Screen) -> tuple[Outcome, dict[str, float]]:
    """Run, or continue, a simulation; return its outcome and the seconds of each phase.

    Args:
        plan: the options.
        environ: this process's environment, with Label Studio's location, the models and the device.
        screen: shows progress.

    Raises:
        SimulationDiffersError: the folder contains a simulation with other options.
        StackError: Label Studio is not installed or refuses a request.
        ServiceDidNotStartError: a component of the stack does not start.
        CommandFailedError: an `osprey` command failed.
        NotCollectedError: submitted regions did not reach the correction store.
    """
    notes = ProgressFile(plan.folder / "simulation.json", plan.settings())
    sets = notes.phase("write replay and base set", lambda: _write_sets(plan, screen))
    variables = _stack_variables(plan, environ, sets)
    with own_stack(plan.stack, variables, environ, lambda title: screen.step(f"start {title}")) as stack:
        made = notes.phase("make the project", lambda: {"id": _made_project(stack)})
        database = f"sqlite:///{plan.stack.absolute() / 'corrections.db'}"
        settings = Settings.from_env({**variables, "OSPREY_DATABASE_URL": database})
        with TeamProject(stack, int(made["id"])) as project, Store.open(database) as store:
            site = _Site(plan, stack, project, store, settings, environ, screen)
            outcome = _rounds(site, notes)
            screen.step("write the report")
            _osprey(site, "report", "--project", str(project.id), "--out", str(plan.report.absolute()))
    return outcome, notes.seconds()


def _rounds(site: _Site, notes: ProgressFile) -> Outcome:
    rounds, control = [], None
    for idx in range(site.plan.rounds + 1):
        name = f"round {idx}"
        found = notes.phase(f"{name}: annotate", partial(_annotate, site, idx))
        seen = tuple(Seen.from_json(line) for line in found["seen"])
        if idx == site.plan.rounds:
            rounds.append(RoundOutcome(seen, None, None))
            break
        work = partial(_fine_tune_beside_control, site) if idx == 0 else partial(_fine_tune, site, idx)
        tuned = notes.phase(f"{name}: fine-tune and gate", work)
        control = tuned.get("control", control)
        notes.phase(f"{name}: promote", partial(_promote, site, tuned))
        rounds.append(RoundOutcome(seen, tuned["candidate"], tuned["gate"]))
    return Outcome(tuple(rounds), control)


def _write_sets(plan: Plan, screen: Screen) -> dict[str, Any]:
    label_config = BITMASK.read_text(encoding="utf-8")
    paths = {}
    for name, seeds, number in (
        ("replay", plan.replay_seeds(), _REPLAY_PROJECT),
        ("base", plan.base_seeds(), _BASE_PROJECT),
    ):
        screen.step(f"write the {name} set")
        version = write_truth_set(plan.exports, plan.cache, seeds, label_config, number)
        paths[name] = str(version.path.absolute())
    return paths


def _stack_variables(plan: Plan, environ: Mapping[str, str], sets: Mapping[str, Any]) -> dict[str, str]:
    """Return the `OSPREY_*` variables of the simulation's stack."""
    return {
        "OSPREY_MODEL": environ.get("OSPREY_MODEL") or str(OSPREY_NANO),
        "OSPREY_SAM": environ.get("OSPREY_SAM") or str(SAM_NANO),
        "OSPREY_DEVICE": environ.get("OSPREY_DEVICE") or "auto",
        "OSPREY_REGISTRY": str(plan.registry.absolute()),
        "OSPREY_EXPORTS": str(plan.exports.absolute()),
        "OSPREY_CACHE_DIR": str(plan.cache.absolute()),
        "OSPREY_BASE_SET": str(sets["base"]),
        "OSPREY_REPLAY": str(Path(sets["replay"]) / "data.json"),
        "OSPREY_BLIND_SHARE": "0",  # corrections are counted, so every answer must be shown
        "OSPREY_RANDOM_SHARE": "0",  # no tasks are ordered by uncertainty
        # Answers are measured, not latency, so that a busy machine must not cut any off.
        "OSPREY_WAIT_BUDGET_S": "60",
        "OSPREY_MASK_WAIT_S": "60",
    }


def _made_project(stack: Stack) -> int:
    with TeamProject(stack, None) as project:
        return project.id


def _annotate(site: _Site, idx: int) -> dict[str, Any]:
    plan, screen = site.plan, site.screen
    screen.step(f"round {idx}: annotate")
    seen = annotate(
        site.project,
        plan.team_seeds(idx),
        plan.regions,
        plan.journal(idx),
        lambda done: screen.count(min(done, plan.regions), plan.regions),
    )
    screen.step(f"round {idx}: wait for the webhooks")
    stored = wait_until_collected(site.store, site.project.id, seen)
    return {"seen": [each.to_json() for each in seen], "corrected_in_store": stored}


def _fine_tune_beside_control(site: _Site) -> dict[str, Any]:
    """Train the candidate of round 0 and the control at the same time, each on one core."""
    stopped = threading.Event()

    def go_on() -> None:
        if stopped.is_set():
            raise _StoppedError

    with ThreadPoolExecutor(1) as pool:
        control = pool.submit(_control, site, go_on)
        try:
            return {**_fine_tune(site, 0), "control": control.result()}
        finally:
            stopped.set()


def _fine_tune(site: _Site, idx: int) -> dict[str, Any]:
    site.screen.step(f"round {idx}: fine-tune and gate")
    seconds = itertools.count(1)
    _osprey(site, "finetune", "--project", str(site.project.id), on_wait=lambda: site.screen.count(next(seconds), 0))
    of_project = [each for each in _versions(site) if each.config.get("project") == site.project.id]
    version = of_project[-1]
    return {"candidate": version.name, "gate": version.gate, "metrics": version.metrics}


def _control(site: _Site, go_on: Callable[[], None]) -> dict[str, Any]:
    """Train a candidate on shuffled corrections and return the gate's verdict on it."""
    true = submissions_of_store(site.store, site.project.id)
    wrong = dataclasses.replace(shuffled(true, site.plan.seed), project_id=_CONTROL_PROJECT)
    split = ExportOptions(held_out_share=held_out_share(true, ExportOptions().seed, Bounds().min_images))
    with closing(ImageResolver(_with_label_studio(site))) as images:
        version = export_version(wrong, site.settings.exports, split, images)
    _osprey(site, "finetune", "--data", str(version.path), log="control", on_wait=go_on)
    candidate = next(each for each in _versions(site) if each.data_version == version.path.name)
    assert candidate.gate is not None, "osprey finetune runs the gate on the version that it trained"
    return candidate.gate


def _promote(site: _Site, tuned: Mapping[str, Any]) -> dict[str, Any]:
    """Promote a candidate that passed the gate; the command waits until the workers serve it."""
    name, registry = tuned["candidate"], Registry(site.plan.registry)
    if tuned["gate"]["passed"] and registry.champion_name() != name:
        site.screen.step(f"promote {name}")
        _osprey(site, "promote", name, "--why", "passed the gate in the simulation")
    return {"champion": registry.champion_name()}


def _versions(site: _Site) -> Sequence[ModelVersion]:
    return Registry(site.plan.registry).versions()


def _osprey(
    site: _Site, command: str, *arguments: str, log: str | None = None, on_wait: Callable[[], None] = lambda: None
) -> None:
    """Run an `osprey` command on the simulation's stack, with its seed and steps."""
    variables = {
        "OSPREY_FINETUNE_SEED": str(site.plan.seed),
        **({} if site.plan.steps is None else {"OSPREY_FINETUNE_MAX_STEPS": str(site.plan.steps)}),
    }
    log_file = site.plan.folder / "logs" / f"{log or command}.log"
    run_osprey(
        site.stack, command, *arguments, log=log_file, variables=variables, environ=site.environ, on_wait=on_wait
    )


def _with_label_studio(site: _Site) -> Settings:
    """Return the settings of a process that may fetch the project's pictures."""
    return dataclasses.replace(
        site.settings,
        label_studio_url=site.stack.label_studio_url,
        label_studio_token=site.stack.secrets.label_studio_token,
    )
