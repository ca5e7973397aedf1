"""Claims about the store, on SQLite and PostgreSQL: every reader gets the last saved state, once and in order."""

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
    """Return the hash of the project's config, which the store knows."""
    return store.note_project(PROJECT, "street", CONFIG)


def state_of(stored_task, config_hash: str, **shares: float):
    """Return the state that the collector makes from a task."""
    return task_state(read_label_config(CONFIG), config_hash, PROJECT, stored_task, Shares(**{"blind": 0, **shares}))


def street(task_id: int = 11, annotation_id: int = 7, texts=CAR):
    """Return a corrected car with its wheel, and a drawn tree."""
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
    """Mask, values, suggestion and provenance of each region are as submitted, in stored order."""
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
    """Each field has the model's answer and the final value, even if only one of them exists."""
    saved(store, street())
    pairs = {(pair.region_id, pair.field): pair for pair in store.pairs(PROJECT)}
    changed = pairs["car00001", "category"]
    assert (changed.predicted, changed.final, changed.is_changed, changed.confidence) == (["truck"], ["car"], True, 0.8)
    assert pairs["car00001", "attribute"].is_changed is False
    assert pairs["car00001", "short_description"].predicted is None
    drawn = pairs["tree0001", "category"]
    assert (drawn.predicted, drawn.final, drawn.is_changed, drawn.model_version) == (None, ["tree"], None, None)


def test_saving_the_same_again_changes_nothing(store):
    """Saving the same task twice adds no region and keeps the revision."""
    saved(store, street())
    before, revision = list(store.regions(PROJECT)), store.revision(PROJECT)
    saved(store, street())
    assert (list(store.regions(PROJECT)), store.revision(PROJECT)) == (before, revision)


def test_new_stamp_alone_is_kept_without_a_revision(store):
    """A changed stamp without a changed annotation is stored, but makes no new revision."""
    saved(store, street())
    revision = store.revision(PROJECT)
    saved(store, {**street(), "updated_at": "2026-11-21T00:00:00Z"})
    assert store.revision(PROJECT) == revision
    assert store.stamps(PROJECT) == {11: "2026-11-21T00:00:00Z 7"}


def test_edit_replaces_and_deletion_leaves_a_tombstone(store):
    """After an edit only the new values are stored; after a deletion the annotation stays without regions."""
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
    """A deleted task has no stamp, region or problem; a task that was never stored can be removed, too."""
    saved(store, street())
    assert store.remove_task(PROJECT, 11, store.revision(PROJECT))
    assert not store.remove_task(PROJECT, 11, store.revision(PROJECT))
    store.remove_task(PROJECT, 99, store.revision(PROJECT))
    assert (store.stamps(PROJECT), list(store.regions(PROJECT)), store.problems(PROJECT)) == ({}, [], [])


def test_slower_reader_does_not_overwrite(store):
    """If another process stored the task since the reading began, nothing is written."""
    config_hash = noted(store)
    slow = store.revision(PROJECT)
    store.save(state_of({**street(), "annotations": []}, config_hash), store.revision(PROJECT))
    with pytest.raises(Superseded):
        store.save(state_of(street(), config_hash), slow)
    assert store.counts(PROJECT).regions == 0


def test_order_does_not_depend_on_the_order_of_arrival(store, tmp_path):
    """Readers get tasks in the same order, whatever the order in which they were stored."""
    tasks = [street(task_id, task_id) for task_id in (5, 2, 9)]
    saved(store, *tasks)
    with Store.open(f"sqlite:///{tmp_path}/other.db") as other:
        saved(other, *reversed(tasks))
        ours, theirs = ([each.region for each in each_store.regions(PROJECT)] for each_store in (store, other))
        assert ours == theirs
    assert [each.task for each in ours] == [2, 2, 2, 5, 5, 5, 9, 9, 9]


def test_corrections_since_counts_what_is_new(store):
    """Regions of new and changed annotations are counted once, and the revision tells where to continue."""
    saved(store, street())
    first = store.corrections_since(PROJECT, 0)
    assert (first.regions, first.corrected_regions) == (3, 1)
    assert store.corrections_since(PROJECT, first.revision) == Corrections(first.revision, 0, 0)
    saved(store, street(12, 8), street(texts={**CAR, "category": ["van"]}))
    assert store.corrections_since(PROJECT, first.revision).regions == 6
    assert {each.region.task for each in store.regions(PROJECT, after_revision=first.revision + 1)} == {11}


def test_hostile_text_survives(store):
    """100 kB, HTML, placeholders, NUL and a lone surrogate come back as typed, in values and in problems."""
    words = ["x" * 100_000, "<b>car</b> <region1>", "nul \x00 and \ud83d"]
    nasty = {"category": words[1:2], "short_description": words[2:], "detailed_description": words[:1]}
    saved(store, street(texts=nasty))
    car = next(store.regions(PROJECT)).region
    assert {name: car.texts[name] for name in nasty} == nasty
    problems = {(each.region, each.kind) for each in store.problems(PROJECT)}
    assert ("car00001", "text") in problems


def test_problems_are_kept_and_replaced(store):
    """The problems of a task are replaced when the task is saved again."""
    broken = region("bad00001", {})
    broken[0]["value"] = {"imageDataURL": "data:image/png;base64,AAAA"}
    saved(store, {**street(), "annotations": [annotation(7, broken, region("car00001", CAR))]})
    (problem,) = store.problems(PROJECT)
    assert (problem.task, problem.annotation, problem.region, problem.kind) == (11, 7, "bad00001", "mask")
    assert store.counts(PROJECT).problems == 1
    saved(store, street())
    assert store.problems(PROJECT) == []


def test_blind_regions_can_be_left_out(store):
    """Regions of a blind task are marked and counted, and a reader can leave them out."""
    config_hash = noted(store)
    store.save(state_of(street(), config_hash, blind=1.0), store.revision(PROJECT))
    assert store.counts(PROJECT).blind_regions == 1  # the others say themselves that they were suggested
    assert [r.region.region for r in store.regions(PROJECT, include_blind=False)] == ["car00001", "wheel001"]


def _save_many(url: str, first: int) -> None:
    with Store.open(url) as store:
        for task_id in range(first, first + 20):
            saved(store, street(task_id, task_id))


def test_processes_and_threads_write_at_the_same_time(database_url):
    """With two writing processes and a reader, every task is stored once and every revision belongs to one write."""
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
    """Migrations run once and in order, a failing one changes nothing, and a newer schema is refused with advice."""
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
    """The error for an invalid URL, an unknown database or a missing place names the setting."""
    for url in (
        "nonsense",
        "oracle9://x/y",
        "sqlite:////proc/no/such/file.db",
        "postgresql+psycopg://u:pw@127.0.0.1:1/x",
    ):
        with pytest.raises(StoreUnusable, match="OSPREY_DATABASE_URL") as caught:
            Store.open(url)
        assert "pw" not in str(caught.value)
