"""Measure the time from a click to its mask and all fields.

    python -m bench.speed.click                    # its own service, /predict directly, split by step
    python -m bench.speed.click --size 1920x1080   # the same on larger pictures
    python -m bench.speed.click --label-studio     # the stack of `make up`, through Label Studio's server

There are three kinds of clicks. `cold`: the first click on a picture that was never opened, so that it is fetched,
decoded and encoded by both models. `opened`: the first click, two seconds after its task was opened. `next`: a click
on another object of a picture that was clicked before. `own` is the time of a click without the models' steps,
`own_to_mask` the same without the second job, which describes. `own_cpu_ms` is `own` in CPU time, which depends less
on other work on the machine. See bench/README.md.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import httpx
import psutil
import typer
from rich.console import Console
from rich.table import Table

from bench.harness import report, summary
from bench.quality.evaluate import service_environment
from bench.service.annotator_page import AnnotatorPage, BackendAnsweredBadlyError, RegionAnswer, to_backend
from bench.service.private_service import private_service
from bench.service.scene_server import SceneServer
from bench.service.temporary_project import bench_project
from demo.scenes import make_scene
from label_config.ready_configs import BITMASK
from stack.components import Stack
from stack.settings import CHECKOUT
from stack.state import StateFolder

SEEDS_FROM = 30_000_000  # in no split, so that no cache has them
AFTER_S = 0.03  # the worker still works after its answer
OPEN_S = 2.0  # between opening a task and the first click
SCENE_WH = (512, 384)
MODEL_STEPS = ("segment.embed", "segment.decode", "describe.describe")  # all other steps count as `own`
FIELDS = ("category", "attribute", "short_description", "detailed_description")

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass
class Clicks:
    """Times of each kind of click, and of each step of its answers, in seconds."""

    times_s: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    steps_s: dict[str, dict[str, list[float]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    cpu_s: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    late: int = 0
    refused: int = 0

    def add(self, kind: str, answer: RegionAnswer) -> None:
        """Add one answer; one that lacks a field counts as late."""
        self.times_s[kind].append(answer.elapsed_s)
        self.late += not all(answer.fields.get(name) for name in FIELDS)
        steps = server_timing(answer.headers.get("server-timing", ""))
        for name, seconds in steps.items():
            self.steps_s[kind][name].append(seconds)
        own_s = answer.elapsed_s - sum(steps.get(name, 0.0) for name in MODEL_STEPS)
        self.steps_s[kind]["own"].append(own_s)
        describing_s = steps.get("describe", 0.0) - steps.get("describe.describe", 0.0)
        self.steps_s[kind]["own_to_mask"].append(own_s - describing_s)

    def own_cpu_ms(self, kind: str) -> float:
        """Return the mean CPU time of a click in all processes of the service, without the models' steps."""
        steps, used_s = self.steps_s[kind], self.cpu_s[kind]
        model_s = sum(sum(steps[name]) for name in ("segment.model_cpu", "describe.model_cpu"))
        return round(1000 * (sum(used_s) - model_s) / max(1, len(used_s)), 1)


def service_cpu_s() -> float:
    """Return the CPU time that the processes of the service, our children, have used."""
    times = [child.cpu_times() for child in psutil.Process().children(recursive=True)]
    return float(sum(one.user + one.system for one in times))


def server_timing(header: str) -> dict[str, float]:
    """Return the seconds of each step in a `Server-Timing` header."""
    return {name: float(ms) / 1000 for name, ms in re.findall(r"([\w.\-]+);dur=([\d.]+)", header)}


def click_through(
    seeds: list[int], page_of: Callable[[int], AnnotatorPage], image_wh: tuple[int, int] = SCENE_WH
) -> Clicks:
    """Click every object of every scene once; open every second scene first."""
    clicks = Clicks()
    for position, seed in enumerate(seeds):
        page, opened = page_of(seed), position % 2 == 1
        if opened:
            page.open()
            time.sleep(OPEN_S)
        for number, thing in enumerate(make_scene(seed, image_wh).objects):
            kind = "next" if number else "opened" if opened else "cold"
            before_s = service_cpu_s()
            try:
                clicks.add(kind, page.click(*thing.inner_point_px))
            except BackendAnsweredBadlyError:  # for example "no smaller part was found"
                clicks.refused += 1
                continue
            time.sleep(AFTER_S)
            clicks.cpu_s[kind].append(service_cpu_s() - before_s)
    return clicks


@app.command()
def main(
    scenes: Annotated[int, typer.Option(help="Number of pictures.", min=4)] = 40,
    label_studio: Annotated[bool, typer.Option(help="Use the running stack of `make up`.")] = False,
    wait_budget: Annotated[float, typer.Option(help="Seconds that a click may wait for its fields.")] = 10.0,
    size: Annotated[str, typer.Option(help="Size of the pictures, WIDTHxHEIGHT.")] = "512x384",
    device: Annotated[str, typer.Option(help="Device of the workers: cpu, cuda or auto.")] = "auto",
    seeds_from: Annotated[int, typer.Option(help="First seed; change it for pictures not cached yet.")] = SEEDS_FROM,
    out: Annotated[Path | None, typer.Option(help="Also write the JSON to this file.")] = None,
) -> None:
    """Measure clicks and print a table; the last line is JSON."""
    config = BITMASK.read_text()
    image_wh = read_size(size)
    if label_studio and image_wh != SCENE_WH:
        raise typer.BadParameter("--size cannot be used with --label-studio, whose pictures have one size")
    # Two pictures more than are measured, because the first click of a process compiles and allocates.
    seeds = list(range(seeds_from, seeds_from + scenes + 2))
    load_before = round(os.getloadavg()[0], 1)
    with contextlib.ExitStack() as running:
        page_of = (
            _pages_of_stack(running, seeds, config)
            if label_studio
            else _pages_of_own_service(
                running,
                config,
                image_wh,
                {
                    "OSPREY_WAIT_BUDGET_S": str(wait_budget),
                    "OSPREY_MASK_WAIT_S": str(wait_budget),
                    "OSPREY_DEVICE": device,
                    "OSPREY_BLIND_SHARE": "0",
                },
            )
        )
        click_through(seeds[:2], page_of, image_wh)
        clicks = click_through(seeds[2:], page_of, image_wh)
    Console().print(_table(clicks))
    way = "through Label Studio" if label_studio else "POST /predict"
    figures: dict[str, Any] = {kind: summary(times) for kind, times in sorted(clicks.times_s.items())}
    steps = {
        kind: {name: summary(times) for name, times in by_name.items()} for kind, by_name in clicks.steps_s.items()
    }
    if not label_studio:
        figures["own_cpu_ms"] = {kind: clicks.own_cpu_ms(kind) for kind in sorted(clicks.times_s)}
        print("a click without the models' steps, mean CPU ms in all processes:", figures["own_cpu_ms"])
    load = {"before": load_before, "after": round(os.getloadavg()[0], 1)}
    figures |= {"late": clicks.late, "refused": clicks.refused, "load": load, "steps": steps}
    report(f"click to mask and all fields, {way}", {"size": size, **figures}, out)


def read_size(text: str) -> tuple[int, int]:
    """Read width and height from `1920x1080`.

    Raises:
        typer.BadParameter: the text has another form.
    """
    match = re.fullmatch(r"(\d{2,4})x(\d{2,4})", text)
    if match is None:
        raise typer.BadParameter(f"expected --size as WIDTHxHEIGHT, such as 1920x1080, got {text!r}")
    return int(match[1]), int(match[2])


def _pages_of_own_service(
    running: contextlib.ExitStack, config: str, image_wh: tuple[int, int], environment: Mapping[str, str]
) -> Callable[[int], AnnotatorPage]:
    server = running.enter_context(SceneServer())
    folder = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="osprey-bench-")))
    endpoint = running.enter_context(
        private_service(folder, service_environment(os.environ) | dict(environment), os.environ)
    )
    auth = (endpoint.user, endpoint.password)
    client = running.enter_context(httpx.Client(base_url=endpoint.backend_url, auth=auth, trust_env=False))
    task_ids = itertools.count(1)
    return lambda seed: AnnotatorPage(
        to_backend(client, config), next(task_ids), server.url(seed, image_wh=image_wh), image_wh, config
    )


def _pages_of_stack(running: contextlib.ExitStack, seeds: list[int], config: str) -> Callable[[int], AnnotatorPage]:
    state = StateFolder(Path(os.environ.get("OSPREY_STATE_DIR", CHECKOUT / ".osprey")))
    launch = state.load_launch()
    if launch is None:
        raise typer.BadParameter(f"no stack runs from {state.path}; start one with `make up`")
    project = running.enter_context(bench_project(Stack(state, launch, state.load_secrets()), seeds, config))

    def page_of(seed: int) -> AnnotatorPage:
        task_id, image_url = project.tasks[seed]
        return AnnotatorPage(project.predict, task_id, image_url, make_scene(seed).image_wh, config)

    return page_of


def _table(clicks: Clicks) -> Table:
    shown = Table("click", "p50", "p95", "clicks", title=f"Click to mask and all fields ({clicks.late} late)")
    for kind, times_s in sorted(clicks.times_s.items()):
        row = summary(times_s)
        shown.add_row(kind, f"{row['p50_s']:.2f} s", f"{row['p95_s']:.2f} s", str(row["count"]), style="bold")
        for name, step_times_s in clicks.steps_s[kind].items():
            step = summary(step_times_s)
            shown.add_row(f"  {name}", f"{1000 * step['p50_s']:.0f} ms", f"{1000 * step['p95_s']:.0f} ms", "")
    return shown


if __name__ == "__main__":
    app()
