"""One round of work: fresh pictures clicked through Label Studio, corrected, submitted, and collected by webhook.

What is submitted is noted in the round's journal, one line per task, so a killed round goes on where it was.
Neighbours: `bench/loop/annotator.py` corrects, `bench/loop/team_project.py` clicks and submits.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from bench.loop.annotator import Corrected, corrected
from bench.loop.tally import Seen
from bench.loop.team import is_changed, team_scene
from bench.loop.team_project import TeamProject
from bench.quality.scores import mask_iou
from bench.service.annotator_page import AnnotatorPage, BackendAnsweredBadlyError, RegionAnswer
from demo.scenes import Scene
from demo.scenes.grammar import Region
from demo.truth.picked import picked_regions
from learning.corrections.store import Store

ANNOTATORS = 2  # at the same time: while words are made for one, the other's mask is
_TRIES = 4
_PAUSE_S = 0.5
_LEAST_IOU = 0.5  # a mask that is something else is deleted by the annotator
_COLLECT_LIMIT_S = 120.0


class NotCollectedError(Exception):
    """What was submitted did not arrive in the correction store; the message says how much is missing."""


@dataclass
class Journal:
    """The lines of one round. Safe to share between threads."""

    path: Path

    def __post_init__(self) -> None:
        """Read what is there; a line that was torn by a kill is not."""
        self._lock = threading.Lock()
        self.seen: list[Seen] = []
        self.tasks: set[int] = set()
        text = self.path.read_text(encoding="utf-8") if self.path.exists() else ""
        whole, _, torn = text.rpartition("\n")
        if torn:
            self.path.write_text(whole + "\n" if whole else "", encoding="utf-8")
        for line in whole.splitlines():
            self._note(json.loads(line))

    def add(self, task_id: int, seen: Sequence[Seen]) -> None:
        """Note what was submitted for a task."""
        line = {"task": task_id, "seen": [each.to_json() for each in seen]}
        with self._lock:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            self._note(line)

    def _note(self, line: dict[str, object]) -> None:
        self.tasks.add(int(str(line["task"])))
        self.seen += [Seen.from_json(each) for each in line["seen"]]  # type: ignore[attr-defined]


def annotate(
    project: TeamProject, seeds: Iterator[int], regions: int, journal: Path, on_region: Callable[[int], None]
) -> list[Seen]:
    """Work on fresh scenes until `regions` regions are submitted; what was seen, by seed.

    Args:
        project: where.
        seeds: of the scenes, more than enough of them.
        regions: how many at least.
        journal: the round's file.
        on_region: called with how many regions are submitted.

    Raises:
        LabelStudioFailed: Label Studio refuses something or does not answer.
    """
    notes = Journal(journal)
    lock = threading.Lock()

    def work(_: int) -> None:
        while True:
            with lock:
                if len(notes.seen) >= regions:
                    return
                seed = next(seeds)
                task = project.ensure_pictures([seed])[seed]
            if task[0] not in notes.tasks:
                notes.add(task[0], _annotate_scene(project, team_scene(seed), task))
            on_region(len(notes.seen))

    with ThreadPoolExecutor(ANNOTATORS) as pool:
        list(pool.map(work, range(ANNOTATORS)))
    return sorted(notes.seen, key=lambda each: (each.seed, each.region))


def wait_until_collected(store: Store, project_id: int, seen: Sequence[Seen], limit_s: float = _COLLECT_LIMIT_S) -> int:
    """Wait until the webhooks have brought every submitted region into the store; how many corrected regions it has.

    Raises:
        NotCollectedError: some are missing, or the store counts other corrections than were made.
    """
    wanted = {(each.task, each.region) for each in seen}
    deadline = time.monotonic() + limit_s
    while True:
        stored = {(each.region.task, each.region.region): each for each in store.regions(project_id)}
        missing = wanted - stored.keys()
        if not missing:
            break
        if time.monotonic() > deadline:
            raise NotCollectedError(
                f"expected {len(wanted)} regions in the correction store after {limit_s:.0f} s, {len(missing)} are "
                f"missing, such as {min(missing)}; see data.log and backend.log"
            )
        time.sleep(_PAUSE_S)
    made = {(each.task, each.region) for each in seen if each.corrected}
    found = {key for key in wanted if stored[key].is_corrected}
    if made != found:
        raise NotCollectedError(
            f"{len(made)} regions were corrected, the store counts {len(found)}; "
            f"they differ in {sorted(made ^ found)[:3]}"
        )
    return len(found)


def _annotate_scene(project: TeamProject, scene: Scene, task: tuple[int, str]) -> list[Seen]:
    project.discard(task[0])  # submitted by a simulation that was killed before it could note it
    page = project.page(scene, task)
    seen, done = [], []
    for region, answer in _clicked(page, scene):
        result = corrected(scene, region, page.regions[answer.region_id])
        done.append(result)
        told = answer.meta.get("osprey") or {}
        seen.append(
            Seen(
                scene.seed,
                task[0],
                answer.region_id,
                is_changed(scene, region),
                result.fields,
                result.changed,
                str(told.get("model_version")),
            )
        )
    if done:
        project.submit(task[0], [item for each in done for item in each.items], _lead_time_s(done))
    return seen


def _lead_time_s(done: Sequence[Corrected]) -> float:
    return round(sum(each.seconds for each in done), 1)


def _clicked(page: AnnotatorPage, scene: Scene) -> Iterator[tuple[Region, RegionAnswer]]:
    """The regions that are kept, each with the last answer to it."""
    for thing, part in picked_regions(scene):
        whole = _meant(page, thing, is_part=False)
        if whole is None:
            continue  # nobody describes a part of what is not there
        yield thing, whole
        inner = _meant(page, part, is_part=True) if part is not None else None
        if part is not None and inner is not None and inner.region_id != whole.region_id:
            yield part, inner


def _meant(page: AnnotatorPage, region: Region, *, is_part: bool) -> RegionAnswer | None:
    """The answer to a click on a region; None, and nothing left on the page, where another one came back."""
    before = set(page.regions)
    answer = _click(page, region.inner_point_px)
    if answer is None:
        return None
    if mask_iou(answer.mask, region.mask) >= _LEAST_IOU and (answer.parent_id is not None) == is_part:
        return answer
    if answer.region_id not in before:
        del page.regions[answer.region_id]
    return None


def _click(page: AnnotatorPage, point_px: tuple[int, int]) -> RegionAnswer | None:
    """A region; on a busy machine the backend may say at first that it is not ready."""
    for _ in range(_TRIES):
        with contextlib.suppress(BackendAnsweredBadlyError):
            return page.click(*point_px)
        time.sleep(_PAUSE_S)
    return None
