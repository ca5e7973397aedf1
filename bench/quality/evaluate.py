"""`make eval-demo`: click every object of unseen scenes through the backend and print the quality of the answers.

    python -m bench.quality.evaluate                        # starts its own service, 200 scenes
    python -m bench.quality.evaluate --scenes 20            # fewer scenes
    python -m bench.quality.evaluate --backend-url http://127.0.0.1:9090 --user u --password p

Every object is clicked once at its inner point. Then one of its parts (which one depends on the scene) is clicked at
one spot, up to three times, which selects a smaller part each time. The last line printed is JSON.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import tempfile
import time
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import httpx
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from bench.quality.scores import Row, mask_iou, score_object, score_part, table
from bench.service.annotator_page import AnnotatorPage, BackendAnsweredBadlyError, Predict, RegionAnswer, to_backend
from bench.service.machine import hardware, versions
from bench.service.private_service import Endpoint, private_service
from bench.service.scene_server import SceneServer, scene_png
from demo.scenes import EVAL_SEEDS, Scene, ScenePart, make_scene
from demo.small_models import OSPREY_NANO, SAM_NANO
from label_config.ready_configs import BITMASK
from stack.child_processes import ServiceDidNotStartError

_FIELDS = ("category", "attribute", "short_description", "detailed_description")
_FIRST_TRIES = 4
_LATE_TRIES = 20
_LATE_PAUSE_S = 0.5
_GOOD_PART_IOU = 0.9  # a nested mask this good ends the series of clicks, because the next one would be smaller

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True)
class Evaluator:
    """Clicks through scenes. `image_url` returns the address of a scene's picture; task ids never repeat."""

    predict: Predict
    image_url: Callable[[int], str]
    label_config: str
    task_ids: Iterator[int]
    models: set[tuple[str, str]] = field(default_factory=set)  # versions of Osprey and SAM that answered

    def evaluate(self, scene: Scene, parts_per_object: int) -> list[dict[str, float]]:
        """Score every object of a scene and `parts_per_object` parts of each."""
        scores = []
        for thing in scene.objects:
            page = self._page(scene)
            whole = self._click(page, thing.inner_point_px)
            scores.append(score_object(scene, thing, whole))
            start = scene.seed % max(1, len(thing.parts))
            for number, part in enumerate((*thing.parts[start:], *thing.parts[:start])[:parts_per_object]):
                if number:  # a page without the regions of the part before
                    page = self._page(scene)
                    whole = self._click(page, thing.inner_point_px)
                scores.append(score_part(scene, part, self._click_part(page, whole, part)))
        return scores

    def _click_part(self, page: AnnotatorPage, whole: RegionAnswer | None, part: ScenePart) -> list[RegionAnswer]:
        """Click one spot of a part up to three times; its object is already on the page."""
        answers = [whole] if whole else []
        for _ in range(3):
            # A refusal after the first click means that there is no smaller part.
            answer = self._click(page, part.inner_point_px, quiet=bool(answers))
            if answer is None or any(answer.region_id == earlier.region_id for earlier in answers):
                break
            answers.append(answer)
            if answer.parent_id is not None and mask_iou(answer.mask, part.mask) >= _GOOD_PART_IOU:
                break
        return answers

    def _click(self, page: AnnotatorPage, point_px: tuple[int, int], *, quiet: bool = False) -> RegionAnswer | None:
        """Click once and repeat until all fields have arrived, because quality is measured, not latency."""
        try:
            answer = self._first_answer(page, point_px, tries=1 if quiet else _FIRST_TRIES)
            for _ in range(_LATE_TRIES):
                if all(answer.fields.get(name) for name in _FIELDS):
                    break
                time.sleep(_LATE_PAUSE_S)
                later = page.click(*point_px)
                if later.region_id != answer.region_id:
                    break  # the region was complete, so its empty fields stay empty
                answer = later
        except BackendAnsweredBadlyError as error:
            if not quiet:
                typer.echo(str(error), err=True)
            return None
        provenance = answer.meta.get("osprey") or {}
        self.models.add((str(provenance.get("model_version")), str(provenance.get("segmenter_version"))))
        return answer

    def _first_answer(self, page: AnnotatorPage, point_px: tuple[int, int], tries: int) -> RegionAnswer:
        """Click until a region comes back; a busy backend may answer at first that it is not ready."""
        for _ in range(tries - 1):
            with contextlib.suppress(BackendAnsweredBadlyError):
                return page.click(*point_px)
            time.sleep(_LATE_PAUSE_S)
        return page.click(*point_px)

    def _page(self, scene: Scene) -> AnnotatorPage:
        task_id = next(self.task_ids)
        return AnnotatorPage(self.predict, task_id, self.image_url(scene.seed), scene.image_wh, self.label_config)


@app.command()
def main(
    scenes: Annotated[int, typer.Option(help="Number of evaluation scenes.", min=1, max=len(EVAL_SEEDS))] = 200,
    parts_per_object: Annotated[int, typer.Option(help="Parts to click per object.", min=0)] = 1,
    backend_url: Annotated[str, typer.Option(help="A running backend; by default one is started.")] = "",
    user: Annotated[str, typer.Option(help="Basic-auth user of that backend.")] = "label-studio",
    password: Annotated[str, typer.Option(help="Its password.", envvar="OSPREY_BACKEND_PASSWORD")] = "",
    clients: Annotated[int, typer.Option(help="Annotators who click at the same time.", min=1)] = 2,
    out: Annotated[Path | None, typer.Option(help="Also write the JSON to this file.")] = None,
    device: Annotated[str, typer.Option(help="Device of the workers that are started: cpu, cuda or auto.")] = "auto",
) -> None:
    """Measure the small models on scenes that were not trained on."""
    console = Console()
    started = time.perf_counter()
    with contextlib.ExitStack() as running:
        endpoint, image_url = _prepare(running, backend_url, user, password, device, console)
        client = running.enter_context(
            httpx.Client(base_url=endpoint.backend_url, auth=(endpoint.user, endpoint.password), trust_env=False)
        )
        # Ids beyond any real task's, and new ones in every run, because the backend stores state per task.
        task_ids = itertools.count(int(time.time()) * 100_000)
        label_config = BITMASK.read_text()
        evaluator = Evaluator(to_backend(client, label_config), image_url, label_config, task_ids)
        # Several annotators at once, so that one's fields and the other's mask are computed together.
        with ThreadPoolExecutor(clients) as pool:
            by_scene = pool.map(
                lambda seed: evaluator.evaluate(make_scene(seed), parts_per_object), list(EVAL_SEEDS)[:scenes]
            )
            scores = [score for each in _shown(by_scene, scenes, console) for score in each]
    rows = table(scores)
    console.print(_rich_table(rows, scenes))
    result = {
        "subject": "quality of the demo models over HTTP /predict",
        "scenes": scenes,
        "parts_per_object": parts_per_object,
        "measures": [{**asdict(row.measure), "value": round(row.value, 4), "count": row.count} for row in rows],
        "models": [{"osprey": osprey, "sam": sam} for osprey, sam in sorted(evaluator.models)],
        "elapsed_s": round(time.perf_counter() - started, 1),
        "hardware": hardware(),
        "versions": versions(),
    }
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=1) + "\n")
    typer.echo(json.dumps(result))
    if not all(row.reached for row in rows):
        raise typer.Exit(1)


def _prepare(
    running: contextlib.ExitStack, backend_url: str, user: str, password: str, device: str, console: Console
) -> tuple[Endpoint, Callable[[int], str]]:
    """Return a backend and a function that returns a picture's address for its workers."""
    if backend_url:
        # The workers may not reach a server on this machine, so the task contains the picture itself.
        return Endpoint(backend_url, user, password), _data_url
    server = running.enter_context(SceneServer())
    folder = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="osprey-eval-")))
    # Quality is measured, not latency, so that a busy machine must not cut any answer off.
    limits = {"OSPREY_WAIT_BUDGET_S": "60", "OSPREY_MASK_WAIT_S": "60"}
    variables = service_environment(os.environ) | limits | {"OSPREY_DEVICE": device}
    with console.status("Starting Redis, the backend and two workers"):
        try:
            return running.enter_context(private_service(folder, variables, os.environ)), server.url
        except ServiceDidNotStartError as error:
            console.print(str(error), markup=False, highlight=False)
            raise typer.Exit(2) from error


def service_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the private service's `OSPREY_*` variables, before those that a measurement adds."""
    return {
        "OSPREY_MODEL": environ.get("OSPREY_MODEL") or str(OSPREY_NANO),
        "OSPREY_SAM": environ.get("OSPREY_SAM") or str(SAM_NANO),
        "OSPREY_IMAGE_ALLOW_HOSTS": "127.0.0.1",
    }


def _data_url(seed: int) -> str:
    return "data:image/png;base64," + b64encode(scene_png(seed)).decode()


def _shown(scored: Iterable[list[dict[str, float]]], total: int, console: Console) -> Iterator[list[dict[str, float]]]:
    columns = (TextColumn("scenes"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        yield from progress.track(scored, total=total)


def _rich_table(rows: list[Row], scenes: int) -> Table:
    shown = Table(title=f"Quality on {scenes} unseen scenes, one click per region over HTTP /predict")
    for header, justify in (("measure", "left"), ("value", "right"), ("to reach", "right"), ("regions", "right")):
        shown.add_column(header, justify=justify)  # type: ignore[arg-type]
    for row in rows:
        floor = row.measure.floor
        style = None if floor is None else "green" if row.reached else "red"
        value = f"{row.value:.3f}" if row.measure.key.endswith("iou") else f"{100 * row.value:.1f} %"
        target = "" if floor is None else f"{floor:.2f}" if row.measure.key.endswith("iou") else f"{100 * floor:.0f} %"
        shown.add_row(row.measure.title, value, target, str(row.count), style=style)
    return shown


if __name__ == "__main__":
    app()
