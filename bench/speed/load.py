"""Measure clicks of several annotators, with and without a bulk job.

    python -m bench.speed.load --out bench/results/load_2cpu_202611.json

The benchmark starts its own service (Redis, backend, a worker for masks and one for fields). N annotators work at the
same time: each opens its own pictures and clicks every object, with a pause of one second before each click. There
are three conditions, in turns. `alone`: no bulk job. `process`: beside `osprey describe` of a folder, which handles an
image as `osprey prelabel` does (a process with both models and the lowest priority; a signal stops it during the other
conditions). `queued`: with bulk describe jobs in the describe worker's background queue, which clicks overtake between
two tokens.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console
from rich.table import Table

from bench.harness import percentile, report, summary
from bench.quality.evaluate import service_environment
from bench.service.annotator_page import AnnotatorPage, BackendAnsweredBadlyError, to_backend
from bench.service.private_service import Endpoint, private_service
from bench.service.scene_server import SceneServer
from demo.scenes import make_scene
from job_queue.contracts import DescribeJob, ImageRef, RegionQuery
from job_queue.errors import JobTimedOut
from job_queue.field_answers import questions_for
from job_queue.mask_codec import encode_mask
from job_queue.queue import JobQueue
from label_config.reader import read_label_config
from label_config.ready_configs import BITMASK
from stack.settings import CHECKOUT

SEEDS_FROM = 31_000_000  # in no split
THOUGHT_S = 1.0  # pause before each click
OPEN_S = 2.0
FIELDS = ("category", "attribute", "short_description", "detailed_description")
CONDITIONS = ("alone", "process", "queued")

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


class BulkProcess:
    """`osprey describe` over a folder of scenes. It is stopped outside `running`."""

    def __init__(self, folder: Path, num_images: int) -> None:
        images = folder / "bulk"
        images.mkdir()
        for seed in range(SEEDS_FROM - num_images, SEEDS_FROM):
            make_scene(seed).image.save(images / f"{seed}.png")
        self._out = folder / "bulk.jsonl"
        self._log = (folder / "bulk.log").open("wb")
        command = [sys.executable, "-m", "cli.main", "describe", str(images), "--out", str(self._out)]
        self._process = subprocess.Popen(command, cwd=CHECKOUT, stdout=self._log, stderr=subprocess.STDOUT)
        while not self.num_done:
            if self._process.poll() is not None:
                raise SystemExit(f"the bulk job ended: {(folder / 'bulk.log').read_text()[-2000:]}")
            time.sleep(0.5)
        self._process.send_signal(signal.SIGSTOP)

    @property
    def num_done(self) -> int:
        """Images described so far."""
        return self._out.read_bytes().count(b"\n") if self._out.exists() else 0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run it during the block."""
        self._process.send_signal(signal.SIGCONT)
        try:
            yield
            if self._process.poll() is not None:
                raise SystemExit("the bulk job ended before the clicks did; use more images (--bulk-images)")
        finally:
            self._process.send_signal(signal.SIGSTOP)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        self._log.close()


class BulkJobs:
    """Describe jobs in the background queue: two at any time during `running`, otherwise none."""

    def __init__(self, queue: JobQueue, server: SceneServer, seeds: Iterator[int]) -> None:
        self._queue, self._server, self._seeds = queue, server, seeds
        self._config = read_label_config(BITMASK.read_text())
        self.num_done = 0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Keep two jobs in the queue during the block, then wait for those that have begun."""
        ended = threading.Event()
        with ThreadPoolExecutor(2) as feeders:
            tasks = [feeders.submit(self._feed, ended) for _ in range(2)]
            try:
                yield
            finally:
                ended.set()
            for task in tasks:
                task.result()

    def _feed(self, ended: threading.Event) -> None:
        while not ended.is_set():
            job_id = self._queue.submit(self._job(next(self._seeds)), bulk=True)
            while True:
                try:
                    self._queue.wait_describe(job_id, 5.0)
                    break
                except JobTimedOut:  # clicks are answered first
                    continue
            self.num_done += 1

    def _job(self, seed: int) -> DescribeJob:
        scene = make_scene(seed)
        questions = questions_for(self._config, "Object", part=False)
        regions = [*scene.objects, *(part for thing in scene.objects for part in thing.parts)]
        queries = tuple(
            RegionQuery(f"r{idx}", (encode_mask(region.mask),), questions) for idx, region in enumerate(regions)
        )
        return DescribeJob(ImageRef(self._server.url(seed), None, 1), scene.image_wh, queries)


class Annotators:
    """Annotators who click through pictures that are in no cache."""

    def __init__(self, endpoint: Endpoint, server: SceneServer, seeds: Iterator[int]) -> None:
        self._endpoint, self._server, self._seeds = endpoint, server, seeds
        self._config = BITMASK.read_text()
        self._task_ids = itertools.count(1)
        self.late = self.refused = 0

    def click(self, num_annotators: int, clicks_each: int) -> list[float]:
        """Return the seconds of every click of several annotators at once."""
        with ThreadPoolExecutor(num_annotators) as people:
            taken = list(people.map(lambda place: self._one(place, clicks_each), range(num_annotators)))
        return [seconds for one in taken for seconds in one]

    def _one(self, place: int, num_clicks: int) -> list[float]:
        times_s: list[float] = []
        auth = (self._endpoint.user, self._endpoint.password)
        time.sleep(place * THOUGHT_S / 8)  # so that the annotators do not click at the same moments
        with httpx.Client(base_url=self._endpoint.backend_url, auth=auth, trust_env=False) as client:
            while True:
                seed = next(self._seeds)
                scene = make_scene(seed)
                page = AnnotatorPage(
                    to_backend(client, self._config),
                    next(self._task_ids),
                    self._server.url(seed),
                    scene.image_wh,
                    self._config,
                )
                page.open()
                time.sleep(OPEN_S)
                for thing in scene.objects:
                    if len(times_s) == num_clicks:
                        return times_s
                    try:
                        answer = page.click(*thing.inner_point_px)
                    except BackendAnsweredBadlyError:  # for example an object on another one, taken for its part
                        self.refused += 1
                        continue
                    times_s.append(answer.elapsed_s)
                    self.late += not all(answer.fields.get(name) for name in FIELDS)
                    time.sleep(THOUGHT_S)


@app.command()
def main(
    annotators: Annotated[str, typer.Option(help="Numbers of annotators to measure.")] = "1,2,4,8",
    clicks: Annotated[int, typer.Option(help="Clicks per annotator, condition and round.", min=4)] = 8,
    rounds: Annotated[int, typer.Option(help="Number of rounds through all conditions.", min=1)] = 2,
    bulk_images: Annotated[int, typer.Option(help="Images in the folder of the bulk job.", min=10)] = 200,
    device: Annotated[str, typer.Option(help="Device of all workers: cpu, cuda or auto.")] = "auto",
    out: Annotated[Path | None, typer.Option(help="Also write the JSON to this file.")] = None,
) -> None:
    """Measure clicks under load and print a table; the last line is JSON."""
    counts = [int(text) for text in annotators.split(",")]
    variables = {
        "OSPREY_WAIT_BUDGET_S": "30",
        "OSPREY_MASK_WAIT_S": "30",
        "OSPREY_DEVICE": device,
        "OSPREY_BLIND_SHARE": "0",
    }
    with contextlib.ExitStack() as running:
        server = running.enter_context(SceneServer())
        folder = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="osprey-load-")))
        variables = service_environment(os.environ) | variables
        endpoint = running.enter_context(private_service(folder, variables, os.environ))
        assert endpoint.redis_url is not None
        seeds, bulk_seeds = itertools.count(SEEDS_FROM), itertools.count(SEEDS_FROM + 500_000)
        people = Annotators(endpoint, server, seeds)
        people.click(2, 4)  # the first click of a process compiles and allocates
        process = BulkProcess(folder, bulk_images)
        running.callback(process.close)
        jobs = BulkJobs(JobQueue(endpoint.redis_url), server, bulk_seeds)
        conditions: dict[str, Callable[[], contextlib.AbstractContextManager[None]]] = {
            "alone": contextlib.nullcontext,
            "process": process.running,
            "queued": jobs.running,
        }
        times_s: dict[int, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        done = {"process": process.num_done, "queued": 0}
        for _ in range(rounds):
            for count in counts:
                for name in CONDITIONS:
                    with conditions[name]():
                        times_s[count][name] += people.click(count, clicks)
        done = {"process": process.num_done - done["process"], "queued": jobs.num_done}
    figures = {
        str(count): {
            **{name: summary(by_name[name]) for name in CONDITIONS},
            "p95_ratio": {name: _p95_ratio(by_name, name) for name in CONDITIONS[1:]},
        }
        for count, by_name in times_s.items()
    }
    Console().print(_table(figures))
    report(
        "clicks while a bulk job runs",
        {
            "thought_s": THOUGHT_S,
            "annotators": figures,
            "late": people.late,
            "refused": people.refused,
            "bulk_images_described": done,
        },
        out,
    )


def _p95_ratio(times_s: dict[str, list[float]], name: str) -> float:
    return round(percentile(times_s[name], 95) / percentile(times_s["alone"], 95), 2)


def _table(figures: dict[str, Any]) -> Table:
    shown = Table(
        "annotators", "bulk job", "p50", "p95", "p95, times alone", "clicks", title="Click to mask and fields"
    )
    for count, row in figures.items():
        for name in CONDITIONS:
            one = row[name]
            ratio = "" if name == "alone" else f"{row['p95_ratio'][name]:.2f}"
            shown.add_row(count, name, f"{one['p50_s']:.2f} s", f"{one['p95_s']:.2f} s", ratio, str(one["count"]))
    return shown


if __name__ == "__main__":
    app()
