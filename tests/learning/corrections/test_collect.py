"""Claims about collecting: for any sequence of hints, the store ends up with the state of Label Studio."""

from __future__ import annotations

import random

import numpy as np
import pytest
from PIL import Image

from job_queue.contracts import ImageRef
from job_queue.errors import ImageUnavailable, LabelStudioFailed, LabelStudioRefused
from job_queue.task_arms import Shares
from label_config.geometry import encode_bitmask_png
from learning.corrections.collect import Collector, served_projects, task_state
from learning.corrections.store import Store
from tests.support.fake_label_studio import Reply
from tests.support.label_studio_project import TOKEN
from tests.support.submitted import CAR, CONFIG, WHEEL, region
from worker.images.resolver import ResolvedImage
from worker.label_studio.annotations import AnnotationSource
from worker.label_studio.api import LabelStudioApi

PROJECT = 3
SUGGESTION = {"category": ["truck"]}


@pytest.fixture
def source(label_studio):
    with LabelStudioApi(label_studio.url, TOKEN, timeout_s=5.0) as api:
        yield AnnotationSource(api)


@pytest.fixture
def store(tmp_path):
    with Store.open(f"sqlite:///{tmp_path}/corrections.db") as opened:
        yield opened


@pytest.fixture
def collector(store, source):
    return Collector(store, source, Shares(blind=0.0))


def car(number: int = 1, category: str = "car"):
    return region(f"car{number:05d}", {**CAR, "category": [category]}, suggestion=SUGGESTION)


def kept(store: Store) -> list[tuple]:
    """Return the content of the store: task, annotation, region, category."""
    return [
        (r.region.task, r.region.annotation, r.region.region, r.region.texts.get("category", [""])[0])
        for r in store.regions(PROJECT)
    ]


def says(label_studio) -> list[tuple]:
    """Return the content of Label Studio in the same form."""
    found = []
    for task in label_studio.tasks.values():
        for annotation in task["annotations"]:
            if not annotation["was_cancelled"]:
                for item in annotation["result"]:
                    if item["from_name"] == "category":
                        found.append((task["id"], annotation["id"], item["id"], item["value"]["text"][0]))
    return sorted(found)


def tell(collector: Collector, hook) -> None:
    """Pass a hint to the collector, as a webhook does."""
    from backend.webhook import hint_of

    job = hint_of(hook["action"], hook)
    collector.collect(job.project_id, job.task_ids, job.annotation_ids)


def test_hints_twice_late_and_in_any_order_converge(label_studio, collector, store):
    """After thirty changes with shuffled, doubled and lost hints, one reconcile makes the store equal again."""
    chance = random.Random(5)
    hooks = []
    for task_id in range(1, 8):
        label_studio.add_task(task_id)
    for step in range(30):
        task_id = chance.choice(list(label_studio.tasks))
        annotations = label_studio.tasks[task_id]["annotations"]
        what = chance.choice(["new", "new", "edit", "delete", "skip"])
        if what in ("new", "skip") or not annotations:
            hooks.append(label_studio.annotate(task_id, [*car(step)], was_cancelled=what == "skip"))
        elif what == "edit":
            hooks.append(label_studio.update(task_id, chance.choice(annotations)["id"], [*car(step, "van")]))
        else:
            hooks.append(label_studio.delete(task_id, chance.choice(annotations)["id"]))
    hooks.append(label_studio.delete_task(7))
    told = [hook for hook in hooks if chance.random() < 0.7] * 2
    chance.shuffle(told)
    for hook in told:
        tell(collector, hook)
    collector.reconcile(PROJECT, full=True)
    assert kept(store) == says(label_studio)
    revision = store.revision(PROJECT)
    for hook in hooks:
        tell(collector, hook)
    assert kept(store) == says(label_studio)
    assert store.revision(PROJECT) == revision


@pytest.mark.parametrize("action", ["annotate", "update", "delete", "delete_task"])
def test_each_hint_alone_is_enough(label_studio, collector, store, action):
    """One hint of a creation, an edit or a deletion is enough to make the store correct, without a reconcile."""
    label_studio.add_task(1)
    hook = label_studio.annotate(1, car())
    if action != "annotate":
        tell(collector, hook)
        arguments = {"update": (1, 1, car(category="van")), "delete": (1, 1), "delete_task": (1,)}[action]
        hook = getattr(label_studio, action)(*arguments)
    tell(collector, hook)
    assert kept(store) == says(label_studio)


def test_deletion_of_an_annotation_that_nobody_stored(label_studio, collector, store):
    """A hint about a deleted annotation that was never stored brings all other changes of the project."""
    label_studio.add_task(1)
    label_studio.annotate(1, car(1))
    label_studio.annotate(1, car(2))
    tell(collector, label_studio.delete(1, 2))
    assert kept(store) == says(label_studio) == [(1, 1, "car00001", "car")]


def test_change_while_the_task_is_read_is_not_lost(label_studio, collector, store):
    """A task that changes, or is stored by another worker, while it is read is not overwritten with the old state."""
    label_studio.add_task(1)
    tell(collector, label_studio.annotate(1, car()))
    hook = label_studio.update(1, 1, car(category="van"))
    interrupted = []

    def another_worker(task_id: int) -> None:
        if not interrupted:
            interrupted.append(task_id)
            tell(collector, label_studio.delete(1, 1))
            assert kept(store) == []

    label_studio.before_task = another_worker
    tell(collector, hook)
    assert (interrupted, kept(store)) == ([1], [])


def test_deleted_while_it_is_read_for_the_first_time(label_studio, collector, store):
    """The store does not know the task of the deleted annotation; the next reconcile finds that the task changed."""
    label_studio.add_task(1)
    hook = label_studio.annotate(1, car())
    interrupted = []

    def another_worker(task_id: int) -> None:
        if not interrupted:
            interrupted.append(task_id)
            tell(collector, label_studio.delete(1, 1))

    label_studio.before_task = another_worker
    tell(collector, hook)
    collector.reconcile(PROJECT)
    assert kept(store) == []


def test_forged_hint_stores_nothing_that_is_not_there(label_studio, collector, store):
    """A hint about an unknown task, project or annotation, or one of another project, stores nothing."""
    label_studio.add_project(4)
    label_studio.add_task(1)
    label_studio.add_task(2, project=4)
    label_studio.annotate(1, car(1))
    label_studio.annotate(2, car(2))
    collector.collect(PROJECT, [99])
    collector.collect(PROJECT, [], [12345])
    with pytest.raises(LabelStudioFailed, match="no such project"):
        collector.collect(77, [1])
    assert kept(store) == [(1, 1, "car00001", "car")]  # the unknown annotation started a reconcile
    collector.collect(PROJECT, [2])
    assert kept(store) == [(1, 1, "car00001", "car")]
    assert [each.region.task for each in store.regions(4)] == [2]


def test_reconcile_reads_only_what_changed(label_studio, collector, store):
    """A second reconcile reads no task, and after one edit one task; tasks are listed only from the watermark on."""
    for task_id in range(1, 30):
        label_studio.add_task(task_id)
        label_studio.annotate(task_id, car())
    assert collector.reconcile(PROJECT).read == 29
    label_studio.seen.clear()
    assert collector.reconcile(PROJECT).read == 0
    label_studio.update(4, 4, car(category="van"))
    found = collector.reconcile(PROJECT)
    assert (found.read, found.changed) == (1, 1)
    assert sum("/api/tasks/" in path for path, _ in label_studio.seen) == 1
    assert all("filter%3Atasks%3Aupdated_at" in path for path, _ in label_studio.seen if "/api/tasks?" in path)


def test_deleted_task_is_found_by_a_full_reconcile(label_studio, collector, store):
    """A filtered list does not show deletions; a full reconcile does, and asks Label Studio before it deletes."""
    for task_id in (1, 2):
        label_studio.add_task(task_id)
        label_studio.annotate(task_id, car())
    collector.reconcile(PROJECT)
    label_studio.delete_task(1)
    assert collector.reconcile(PROJECT).removed == 0
    assert collector.reconcile(PROJECT, full=True).removed == 1
    assert kept(store) == says(label_studio)


def test_label_studio_away_in_the_middle_loses_nothing(label_studio, collector, store):
    """Tasks stored before the outage stay, the next reconcile stores the rest, and no project is emptied."""
    for task_id in (1, 2, 3):
        label_studio.add_task(task_id)
        label_studio.annotate(task_id, car())

    def goes_down(task_id: int) -> None:
        label_studio.down = task_id == 2

    label_studio.before_task = goes_down
    with pytest.raises(LabelStudioFailed):
        collector.reconcile(PROJECT)
    assert 0 < len(kept(store)) < 3
    label_studio.down, label_studio.before_task = False, lambda _: None
    collector.reconcile(PROJECT)
    assert kept(store) == says(label_studio)
    project = label_studio.projects.pop(PROJECT)
    with pytest.raises(LabelStudioFailed):
        collector.reconcile(PROJECT, full=True)
    assert len(kept(store)) == 3
    label_studio.projects[PROJECT] = project


def test_token_revoked_in_the_middle_ends_the_reconcile(label_studio, collector, store):
    """A refused token is one error of the whole reconcile, and not a failure of every task that is left."""
    for task_id in (1, 2, 3):
        label_studio.add_task(task_id)
        label_studio.annotate(task_id, car())
    label_studio.replies["/api/tasks/2/"] = Reply(401, b"revoked")
    with pytest.raises(LabelStudioRefused, match="OSPREY_LABEL_STUDIO_TOKEN"):
        collector.reconcile(PROJECT)
    assert kept(store) == [(1, 1, "car00001", "car")]


def test_config_change_between_rounds(label_studio, collector, store):
    """Stored regions keep the config they were read with; a later annotation names the removed control."""
    label_studio.add_task(1)
    label_studio.annotate(1, car())
    collector.reconcile(PROJECT)
    label_studio.projects[PROJECT]["label_config"] = CONFIG.replace('name="attribute"', 'name="properties"')
    label_studio.annotate(1, car(2))
    collector.reconcile(PROJECT)
    first, second = store.regions(PROJECT)
    assert first.config_hash != second.config_hash
    assert store.label_config(first.config_hash) == CONFIG
    assert first.region.texts["attribute"] == ["blue", "metal"]
    assert second.region.stored["attribute"] == ["blue", "metal"]
    assert "attribute" not in second.region.texts
    gone = [each for each in store.problems(PROJECT) if each.region == "car00002" and each.kind == "control"]
    assert gone
    assert "attribute" in gone[0].problem
    label_studio.projects[PROJECT]["label_config"] = CONFIG  # put back: the words are read again
    collector.reconcile(PROJECT, again=True)
    assert [each.region.texts["attribute"] for each in store.regions(PROJECT)] == [["blue", "metal"]] * 2


def broken(kind: str) -> list[dict]:
    """Return the items of one bad region."""
    items = region("bad00001", WHEEL)
    if kind == "unreadable mask":
        items[0]["value"] = {"imageDataURL": "data:image/png;base64,AAAA"}
    elif kind == "mask of another size":
        for item in items:
            item["value"] = {**item["value"], "imageDataURL": encode_bitmask_png(np.ones((4, 6), dtype=np.bool_))}
    elif kind == "no mask":
        return [{**items[1], "value": {"text": ["wheel"]}}]
    elif kind == "no such control":
        items[1] = {**items[1], "from_name": "gone"}
    elif kind == "long text":
        items[1]["value"]["text"] = ["x" * 100_000]
    elif kind == "markup":
        items[1]["value"]["text"] = ["<b>car</b> <region1>"]
    return items


@pytest.mark.parametrize(
    "kind", ["unreadable mask", "mask of another size", "no mask", "no such control", "long text", "markup"]
)
def test_bad_item_is_a_problem_with_task_and_region(label_studio, collector, store, kind):
    """Each bad item is reported and counted, and the good region beside it is stored."""
    label_studio.add_task(1)
    tell(collector, label_studio.annotate(1, [*broken(kind), *car()]))
    problems = store.problems(PROJECT)
    assert {(each.task, each.annotation, each.region) for each in problems} == {(1, 1, "bad00001")}
    assert store.counts(PROJECT).problems == len(problems) > 0
    assert (1, 1, "car00001", "car") in kept(store)


@pytest.mark.parametrize(
    "task", [{"annotations": ["text"]}, {"data": {}}, {"data": None}, {"annotations": [{"id": 7}]}]
)
def test_odd_task_is_a_problem(task):
    """A malformed task gives a state with a problem and raises no exception."""
    from label_config.reader import read_label_config

    whole = {"id": 1, "project": 3, "data": {"image": "/x.png"}, "annotations": [{"id": 7, "result": car()}], **task}
    assert task_state(read_label_config(CONFIG), "", PROJECT, whole, Shares()).problems


class Pictures:
    """Resolves every reference to an image of one size, or to none."""

    def __init__(self, size: tuple[int, int] | None) -> None:
        self.size = size

    def resolve(self, ref: ImageRef) -> ResolvedImage:
        if self.size is None:
            raise ImageUnavailable(f"{ref.url} is gone")
        return ResolvedImage(Image.new("RGB", self.size), "0" * 64)


def test_image_is_checked_with_its_regions(label_studio, store, source):
    """A missing image or one of another size is a problem of each region; with the right image the problem goes."""
    label_studio.add_task(1)
    label_studio.annotate(1, car())
    Collector(store, source, Shares(), Pictures(None)).reconcile(PROJECT)
    (gone,) = store.problems(PROJECT)
    assert (gone.task, gone.region, gone.kind, "gone" in gone.problem) == (1, "car00001", "image", True)
    Collector(store, source, Shares(), Pictures((6, 4))).reconcile(PROJECT, full=True)
    (other,) = store.problems(PROJECT)
    assert "1024x768" in other.problem
    Collector(store, source, Shares(), Pictures((1024, 768))).reconcile(PROJECT, again=True)
    assert store.problems(PROJECT) == []
    (stored,) = store.regions(PROJECT)
    assert stored.image_sha256 == "0" * 64


def test_one_task_that_nobody_foresaw_does_not_keep_the_others_out(label_studio, collector, store, monkeypatch):
    """An unexpected error is reported with the task's number, and the next reconcile reads the task again."""
    for task_id in (1, 2):
        label_studio.add_task(task_id)
        label_studio.annotate(task_id, car())
    from learning.corrections import collect

    real = collect.task_state

    def fails_once(config, config_hash, project_id, task, shares):
        if task["id"] == 1:
            raise RuntimeError("never seen before")
        return real(config, config_hash, project_id, task, shares)

    monkeypatch.setattr(collect, "task_state", fails_once)
    (failed,) = collector.reconcile(PROJECT).failed
    assert (failed.task_id, "never seen before" in failed.reason) == (1, True)
    assert [task for task, *_ in kept(store)] == [2]
    monkeypatch.setattr(collect, "task_state", real)
    assert collector.reconcile(PROJECT).read == 1
    assert kept(store) == says(label_studio)


def test_blind_is_what_the_answer_said(label_studio, store, source):
    """The region's meta decides whether it is blind; without meta the task decides."""
    label_studio.add_task(1)
    blind, seen, drawn = car(1), car(2), region("drawn001", CAR, origin="manual")
    for item in blind:
        item["meta"]["osprey"]["blind"] = True
    label_studio.annotate(1, [*blind, *seen, *drawn])
    for share, expected in ((0.0, [True, False, False]), (1.0, [True, False, True])):
        Collector(store, source, Shares(blind=share)).reconcile(PROJECT, again=True)
        label_studio.update(1, 1, [*blind, *seen, *drawn])
        Collector(store, source, Shares(blind=share)).reconcile(PROJECT)
        assert [each.is_blind for each in store.regions(PROJECT)] == expected


def test_only_projects_that_can_be_served_are_collected():
    """A project whose labeling config has no image is not collected."""
    texts = '<View><Text name="text" value="$text"/></View>'
    projects = [{"id": 1, "label_config": CONFIG}, {"id": 2, "label_config": texts}, {"id": 3, "label_config": None}]
    assert served_projects(projects) == [1]
