"""Claims about the store, on SQLite and PostgreSQL: it says what was saved last, once, in order, to everybody."""

from __future__ import annotations

import multiprocessing
import threading

import pytest
from sqlalchemy import create_engine, text

from job_queue.mask_codec import decode_mask
from job_queue.task_arms import Shares
from label_config.reader import read_label_config
from learning.corrections.collect import task_state
from learning.corrections.records import Corrections
from learning.corrections.schema import SCHEMA_VERSION, StoreUnusable, prepare, set_up
from learning.corrections.store import Store, Superseded
from tests.support.submitted import CAR, CONFIG, WHEEL, annotation, region, task

PROJECT = 3
SUGGESTION = {"category": ["truck"], "attribute": ["blue", "metal"]}


def noted(store: Store) -> str:
    """The hash of the project's config, known to the store."""
    return store.note_project(PROJECT, "street", CONFIG)


def state_of(stored_task, config_hash: str, **shares: float):
    """What the collector makes of a task."""
    return task_state(read_label_config(CONFIG), config_hash, PROJECT, stored_task, Shares(**{"blind": 0, **shares}))


def street(task_id: int = 11, annotation_id: int = 7, texts=CAR):
    """A corrected car with its wheel, and a drawn tree."""
    regions = (
        region("car00001", texts, suggestion=SUGGESTION, origin="prediction-changed"),
        region("wheel001", WHEEL, label="Part", parent="car00001", suggestion=WHEEL),
        region("tree0001", {"category": ["tree"]}, origin="manual"),
    )
    stored = annotation(annotation_id, *regions, created_at="2026-11-20T18:00:00Z")
    return {**task(task_id, stored), "updated_at": f"2026-11-20T18:49:4{annotation_id}Z", "project": PROJECT}


def saved(store: Store, *tasks) -> None:
    config_hash = noted(store)
    for each in tasks:
        store.save(state_of(each, config_hash), store.revision(PROJECT))


def test_region_comes_back_with_everything_about_it(store):
    """Mask, words, suggestion and provenance of each region are as submitted, in stored order."""
    saved(store, street())
    car, wheel, tree = store.regions(PROJECT)
    expected = state_of(street(), "").annotations[0].regions
    assert [each.region for each in (car, wheel, tree)] == list(expected)
    assert decode_mask(car.region.mask).any()
    assert (car.region.annotator, car.region.lead_time_s, car.region.model_version) == (5, 6.9, "nano-1")
    assert (car.is_corrected, wheel.is_corrected, tree.is_corrected) == (True, False, False)
    assert (car.image_url, car.created_at, car.arm) == (
        "/data/upload/3/f4b2e5a7-street_1.png", "2026-11-20T18:00:00Z", state_of(street(), "").arm,
    )  # fmt: skip
    assert store.label_config(car.config_hash) == CONFIG


def test_each_field_is_a_pair(store):
    """What the model said and what was kept, also where only one of them exists."""
    saved(store, street())
    pairs = {(pair.region_id, pair.field): pair for pair in store.pairs(PROJECT)}
    changed = pairs["car00001", "category"]
    assert (changed.predicted, changed.final, changed.is_changed, changed.confidence) == (["truck"], ["car"], True, 0.8)
    assert pairs["car00001", "attribute"].is_changed is False
    assert pairs["car00001", "short_description"].predicted is None
    drawn = pairs["tree0001", "category"]
    assert (drawn.predicted, drawn.final, drawn.is_changed, drawn.model_version) == (None, ["tree"], None, None)


def test_saving_the_same_again_changes_nothing(store):
    """Twice the same task: no second region, and the revision stays."""
    saved(store, street())
    before, revision = list(store.regions(PROJECT)), store.revision(PROJECT)
    saved(store, street())
    assert (list(store.regions(PROJECT)), store.revision(PROJECT)) == (before, revision)


def test_new_stamp_alone_is_kept_without_a_revision(store):
    """A task that Label Studio touched without changing an annotation is not looked at again."""
    saved(store, street())
    revision = store.revision(PROJECT)
    saved(store, {**street(), "updated_at": "2026-11-21T00:00:00Z"})
    assert store.revision(PROJECT) == revision
    assert store.stamps(PROJECT) == {11: "2026-11-21T00:00:00Z 7"}


def test_edit_replaces_and_deletion_leaves_a_tombstone(store):
    """After an edit only the edited words are there; after a deletion none, but it is known that there was one."""
    saved(store, street())
    edited = {**CAR, "category": ["van"]}
    saved(store, street(texts=edited))
    assert [r.region.texts.get("category") for r in store.regions(PROJECT)] == [["van"], ["car"], ["tree"]]
    saved(store, {**street(), "annotations": []})
    counts = store.counts(PROJECT)
    assert (counts.regions, counts.annotations, counts.deleted_annotations) == (0, 0, 1)
    assert list(store.pairs(PROJECT)) == []
    assert store.task_of(PROJECT, 7) == 11
    saved(store, street())  # brought back from a backup
    assert store.counts(PROJECT).regions == 3


def test_removed_task_is_gone_for_readers(store):
    """A deleted task has no stamp, no region and no problem; a task that never was stored can be removed too."""
    saved(store, street())
    assert store.remove_task(PROJECT, 11, store.revision(PROJECT))
    assert not store.remove_task(PROJECT, 11, store.revision(PROJECT))
    store.remove_task(PROJECT, 99, store.revision(PROJECT))
    assert (store.stamps(PROJECT), list(store.regions(PROJECT)), store.problems(PROJECT)) == ({}, [], [])


def test_slower_reader_does_not_overwrite(store):
    """Two read the same task; the one whose reading began before the other's writing writes nothing."""
    config_hash = noted(store)
    slow = store.revision(PROJECT)
    store.save(state_of({**street(), "annotations": []}, config_hash), store.revision(PROJECT))
    with pytest.raises(Superseded):
        store.save(state_of(street(), config_hash), slow)
    assert store.counts(PROJECT).regions == 0


def test_order_does_not_depend_on_the_order_of_arrival(store, tmp_path):
    """Tasks stored in another order are read in the same one."""
    tasks = [street(task_id, task_id) for task_id in (5, 2, 9)]
    saved(store, *tasks)
    with Store.open(f"sqlite:///{tmp_path}/other.db") as other:
        saved(other, *reversed(tasks))
        ours, theirs = ([each.region for each in each_store.regions(PROJECT)] for each_store in (store, other))
        assert ours == theirs
    assert [each.task for each in ours] == [2, 2, 2, 5, 5, 5, 9, 9, 9]


def test_corrections_since_counts_what_is_new(store):
    """A trigger sees the regions of new and changed annotations once, and where to go on."""
    saved(store, street())
    first = store.corrections_since(PROJECT, 0)
    assert (first.regions, first.corrected_regions) == (3, 1)
    assert store.corrections_since(PROJECT, first.revision) == Corrections(first.revision, 0, 0)
    saved(store, street(12, 8), street(texts={**CAR, "category": ["van"]}))
    assert store.corrections_since(PROJECT, first.revision).regions == 6
    assert {each.region.task for each in store.regions(PROJECT, after_revision=first.revision + 1)} == {11}


def test_hostile_text_survives(store):
    """100 kB, HTML, placeholders, NUL and a lone surrogate come back as typed, and as a problem where that is one."""
    words = ["x" * 100_000, "<b>car</b> <region1>", "nul \x00 and \ud83d"]
    nasty = {"category": words[1:2], "short_description": words[2:], "detailed_description": words[:1]}
    saved(store, street(texts=nasty))
    car = next(store.regions(PROJECT)).region
    assert {name: car.texts[name] for name in nasty} == nasty
    problems = {(each.region, each.kind) for each in store.problems(PROJECT)}
    assert ("car00001", "text") in problems


def test_problems_are_kept_and_replaced(store):
    """A task's problems go when the task is put right."""
    broken = region("bad00001", {})
    broken[0]["value"] = {"imageDataURL": "data:image/png;base64,AAAA"}
    saved(store, {**street(), "annotations": [annotation(7, broken, region("car00001", CAR))]})
    (problem,) = store.problems(PROJECT)
    assert (problem.task, problem.annotation, problem.region, problem.kind) == (11, 7, "bad00001", "mask")
    assert store.counts(PROJECT).problems == 1
    saved(store, street())
    assert store.problems(PROJECT) == []


def test_blind_regions_can_be_left_out(store):
    """A blind task's regions are marked, counted, and not given to who asks for none."""
    config_hash = noted(store)
    store.save(state_of(street(), config_hash, blind=1.0), store.revision(PROJECT))
    assert store.counts(PROJECT).blind_regions == 1  # the others say themselves that they were suggested
    assert [r.region.region for r in store.regions(PROJECT, include_blind=False)] == ["car00001", "wheel001"]


def _save_many(url: str, first: int) -> None:
    with Store.open(url) as store:
        for task_id in range(first, first + 20):
            saved(store, street(task_id, task_id))


def test_processes_and_threads_write_at_the_same_time(database_url):
    """Two processes, and a reader beside them: every task is there once, and every revision belongs to one write."""
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_save_many, args=(database_url, first)) for first in (100, 110)]
    for writer in writers:
        writer.start()
    with Store.open(database_url) as store:
        done = threading.Event()
        seen: list[int] = []

        def read() -> None:
            while not done.is_set():
                seen.append(sum(1 for _ in store.regions(PROJECT)))

        reader = threading.Thread(target=read)
        reader.start()
        for writer in writers:
            writer.join()
        done.set()
        reader.join()
        assert [writer.exitcode for writer in writers] == [0, 0]
        assert store.counts(PROJECT).regions == 30 * 3
        assert store.revision(PROJECT) == 30
        assert seen == sorted(seen)
        assert all(count % 3 == 0 for count in seen)


def test_older_database_is_migrated_and_newer_refused(database_url):
    """Steps run in order, once; a failing one leaves everything as it was; a newer schema is refused with advice."""
    Store.open(database_url).close()
    engine = create_engine(database_url)
    set_up(engine)
    steps = {
        SCHEMA_VERSION: lambda connection: connection.execute(text("ALTER TABLE tasks ADD COLUMN one INTEGER")),
        SCHEMA_VERSION + 1: lambda connection: connection.execute(text("ALTER TABLE nothing ADD COLUMN two INTEGER")),
    }
    with pytest.raises(Exception, match="nothing"):
        prepare(engine, steps, SCHEMA_VERSION + 2)
    steps[SCHEMA_VERSION + 1] = lambda connection: connection.execute(text("UPDATE tasks SET one = 2"))
    prepare(engine, steps, SCHEMA_VERSION + 2)
    prepare(engine, steps, SCHEMA_VERSION + 2)
    engine.dispose()
    with pytest.raises(StoreUnusable, match="newer release"):
        Store.open(database_url)


def test_unusable_address_is_named():
    """A URL of nonsense, of an unknown database or to a place that is not there says which setting to correct."""
    for url in (
        "nonsense",
        "oracle9://x/y",
        "sqlite:////proc/no/such/file.db",
        "postgresql+psycopg://u:pw@127.0.0.1:1/x",
    ):
        with pytest.raises(StoreUnusable, match="OSPREY_DATABASE_URL") as caught:
            Store.open(url)
        assert "pw" not in str(caught.value)
