"""Claims about exporting from the correction store: the version is the same as directly from Label Studio."""

from __future__ import annotations

import pytest

from job_queue.task_arms import Shares
from learning.corrections.collect import Collector
from learning.corrections.store import Store
from learning.corrections.stored_submissions import NotCollected, submissions_of_store
from learning.export.version import export_version, read_export
from learning.submitted.submissions import submissions_of_tasks
from tests.support.label_studio_project import LabelStudioProject
from tests.support.submitted import CAR, CONFIG, region
from worker.label_studio.annotations import annotation_source
from worker.settings import Settings

PROJECT = 3


def annotated(label_studio: LabelStudioProject) -> Settings:
    """Fill three tasks with a region each; one value has markup, and one item cannot be used."""
    for task_id in (1, 2, 3):
        label_studio.add_task(task_id)
        items = region(f"car{task_id}", {**CAR, "category": ["<b>car</b>" if task_id == 2 else "car"]})
        lost = {"id": "lost", "type": "keypoint", "from_name": "click", "to_name": "image", "value": {"x": 1, "y": 1}}
        label_studio.annotate(task_id, [lost, *items] if task_id == 3 else items)
    return Settings(label_studio_url=label_studio.url, label_studio_token=label_studio.legacy_token)


def collected(store: Store, settings: Settings) -> None:
    """Collect everything into the store."""
    with annotation_source(settings) as source:
        Collector(store, source, Shares(blind=0.0)).reconcile(PROJECT, full=True)


def test_store_and_label_studio_give_one_version(store, label_studio, tmp_path):
    """Regions, problems and files are the same, so the second export finds the version of the first."""
    settings = annotated(label_studio)
    collected(store, settings)
    with annotation_source(settings) as source:
        direct = submissions_of_tasks(source.project(PROJECT), source.tasks(PROJECT))
    first = export_version(direct, tmp_path / "out")
    second = export_version(submissions_of_store(store, PROJECT), tmp_path / "out")
    one, two = read_export(first.path), read_export(second.path)
    assert two.regions == one.regions
    assert two.problems == one.problems
    assert {problem.kind for problem in one.problems} == {"mask", "text"}
    assert (second.path, second.is_new) == (first.path, False)


def test_config_of_today_decides(store, label_studio, tmp_path):
    """Values of a control that was renamed later are kept and reported by region, but not trained on."""
    settings = annotated(label_studio)
    collected(store, settings)
    store.note_project(PROJECT, "street", CONFIG.replace('name="category"', 'name="object_name"'))
    export = read_export(export_version(submissions_of_store(store, PROJECT), tmp_path / "out").path)
    assert {each.region for each in export.problems if each.kind == "control"} == {"car1", "car2", "car3"}
    assert all("category" not in each.texts and each.stored["category"] for each in export.regions)


def test_unknown_project_says_what_to_run(store):
    """The error for a project that was never collected names the command to run."""
    with pytest.raises(NotCollected, match="osprey collect --project 9"):
        submissions_of_store(store, 9)
