"""One round of annotation: click new pictures through Label Studio, correct, submit, wait for the webhooks.

The round's journal has a line per submitted task, so that a killed round can be continued.
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

ANNOTATORS = 2  # at the same time, so that one's fields and the other's mask are computed together
_TRIES = 4
_PAUSE_S = 0.5
_LEAST_IOU = 0.5  # below, the mask is of something else and the annotator deletes it
_COLLECT_LIMIT_S = 120.0


class NotCollectedError(Exception):
    """Submitted regions are missing in the correction store; the message has their number."""


@dataclass
class Journal:
    """The lines of one round. Threads may share it."""

    path: Path

    def __post_init__(self) -> None:
        """Read the complete lines; drop a line that a kill has cut off."""
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
        """Record what was submitted for a task."""
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
    """Annotate new scenes until `regions` regions are submitted; return the submitted regions, by seed.

    Args:
        project: the project in Label Studio.
        seeds: the seeds of the scenes, more than are needed.
        regions: the least number of regions.
        journal: the round's file.
        on_region: called with the number of submitted regions.

    Raises:
        LabelStudioFailed: Label Studio rejects a request or does not answer.
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
    """Wait until the webhooks have stored every submitted region; return the number of corrected ones.

    Raises:
        NotCollectedError: regions are missing, or the store has other corrected regions than were corrected.
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
    project.discard(task[0])  # in case a simulation was killed after submitting it and before recording it
    page = project.page(scene, task)
    seen, done = [], []
    for region, answer in _clicked(page, scene):
        result = corrected(scene, region, page.regions[answer.region_id])
        done.append(result)
        provenance = answer.meta.get("osprey") or {}
        seen.append(
            Seen(
                scene.seed,
                task[0],
                answer.region_id,
                is_changed(scene, region),
                result.fields,
                result.changed,
                str(provenance.get("model_version")),
            )
        )
    if done:
        project.submit(task[0], [item for each in done for item in each.items], _lead_time_s(done))
    return seen


def _lead_time_s(done: Sequence[Corrected]) -> float:
    return round(sum(each.seconds for each in done), 1)


def _clicked(page: AnnotatorPage, scene: Scene) -> Iterator[tuple[Region, RegionAnswer]]:
    """Yield the regions that are kept, each with the last answer to it."""
    for thing, part in picked_regions(scene):
        whole = _meant(page, thing, is_part=False)
        if whole is None:
            continue  # without the object there is no region to nest the part in
        yield thing, whole
        inner = _meant(page, part, is_part=True) if part is not None else None
        if part is not None and inner is not None and inner.region_id != whole.region_id:
            yield part, inner


def _meant(page: AnnotatorPage, region: Region, *, is_part: bool) -> RegionAnswer | None:
    """Click a region; return None, and remove the answer from the page, if it is another region."""
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
    """Click until a region comes back; a busy backend may answer at first that it is not ready."""
    for _ in range(_TRIES):
        with contextlib.suppress(BackendAnsweredBadlyError):
            return page.click(*point_px)
        time.sleep(_PAUSE_S)
    return None
