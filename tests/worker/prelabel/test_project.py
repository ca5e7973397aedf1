"""Claims about pre-annotating a project: what is pushed, what is not, and what is reported."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

import label_config
from job_queue.errors import LabelStudioFailed
from job_queue.task_arms import NO_SHARES, Shares
from label_config.reader import read_label_config
from label_config.validate import validate_results
from tests.support.fake_models import FakeDescriber, FakeSegmenter
from tests.support.fake_predictions import FakePredictions, task
from worker.images.resolver import ImageResolver
from worker.label_studio.prediction_store import prediction_store
from worker.prelabel.annotate import AnnotateOptions, ImageAnnotator
from worker.prelabel.project import Progress, ProjectPrelabeler
from worker.settings import Settings

CONFIG = Path(label_config.__file__).with_name("bitmask.xml").read_text()
VERSION = "osprey-fake-1"


@pytest.fixture
def server() -> Iterator[FakePredictions]:
    with closing(FakePredictions(CONFIG, [task(1), task(2), task(3)])) as fake:
        yield fake


@pytest.fixture
def describer() -> FakeDescriber:
    return FakeDescriber()


@pytest.fixture
def run(server, describer, tmp_path):
    """Run the whole path against the fake server; keyword arguments go to `ProjectPrelabeler.run`."""

    def start(task_ids=None, options=None, on_progress=lambda _: None, shares=NO_SHARES, **how) -> Progress:
        settings = Settings(
            label_studio_url=server.url, label_studio_token="legacy", cache_dir=tmp_path, image_timeout_s=5
        )
        annotator = ImageAnnotator(FakeSegmenter(), describer, options or AnnotateOptions())
        with prediction_store(settings) as store, closing(ImageResolver(settings)) as images:
            return ProjectPrelabeler(store, images, annotator, on_progress, shares).run(1, task_ids, **how)

    return start


def test_every_task_gets_one_prediction_in_one_batch(server, run):
    """All tasks are pushed in one call, each with the model's version, a score and items that the page accepts."""
    progress = run()
    assert (progress.pushed, progress.skipped, progress.regions, progress.failures) == (3, 0, 9, [])
    assert server.imports == [[1, 2, 3]]
    for prediction in server.predictions:
        assert prediction["model_version"] == VERSION
        assert prediction["score"] == pytest.approx(0.45)  # masks of 0.9, words of 0.5
        assert validate_results(read_label_config(CONFIG), prediction["result"]) == []


def test_parts_hang_below_the_region_around_them(server, run):
    """Of three nested discs the middle one is a part of the largest, and the smallest a part of the middle one."""
    run([1])
    items = server.predictions[0]["result"]
    masks = [item for item in items if item["type"] == "bitmasklabels"]
    assert [item["value"]["bitmasklabels"] for item in masks] == [["Object"], ["Part"], ["Part"]]
    assert [item.get("parentID") for item in masks] == [None, masks[0]["id"], masks[1]["id"]]
    assert all(item["score"] == pytest.approx(0.45) for item in masks)
    parts = {item["id"]: item["value"]["text"] for item in items if item["from_name"] == "part"}
    assert parts[masks[0]["id"]] == ["whole"]
    assert parts[masks[1]["id"]] == ["part What part is {region}?"]


def test_a_blind_task_gets_masks_and_keeps_the_words_to_itself(server, run):
    """No control is filled; the model's answers are in the meta, where collecting finds them."""
    run([1], shares=Shares(blind=1.0))
    items = server.predictions[0]["result"]
    assert {item["from_name"] for item in items} == {"mask"}
    provenance = items[0]["meta"]["osprey"]
    assert provenance["blind"] is True
    assert provenance["suggestion"]["category"]


def test_the_random_arm_says_so(server, run):
    run([1], shares=Shares(random=1.0))
    assert server.predictions[0]["result"][0]["meta"]["osprey"]["arm"] == "random"


def test_a_second_run_pushes_nothing(server, run, describer):
    """A task with a prediction of this version is neither described nor pushed again."""
    run()
    asked = describer.num_asked
    progress = run()
    assert (progress.pushed, progress.skipped) == (0, 3)
    assert describer.num_asked == asked
    assert len(server.predictions) == 3


def test_another_version_counts_for_nothing(server, run):
    """A prediction of another model does not count, even if its name contains this model's."""
    server.predictions = [{"id": 90, "task": 1, "model_version": VERSION + "2", "result": []}]
    assert run().pushed == 3


def test_a_killed_run_is_continued(server, run):
    """A run that ends in the middle has pushed what it had; the next one does the rest."""

    def stop_at_two(progress: Progress) -> None:
        if progress.annotated == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(on_progress=stop_at_two)
    assert server.imports == [[1, 2]]
    progress = run()
    assert server.imports == [[1, 2], [3]]
    assert (progress.skipped, progress.pushed) == (2, 1)


def test_force_replaces(server, run):
    """With force, the version's old prediction is replaced; those of other versions are kept."""
    server.predictions = [
        {"id": 90, "task": 1, "model_version": VERSION, "result": []},
        {"id": 91, "task": 1, "model_version": "other", "result": []},
    ]
    run([1], force=True)
    assert sorted(one["model_version"] for one in server.predictions) == ["osprey-fake-1", "other"]
    assert 90 not in [one["id"] for one in server.predictions]


def test_failures_name_their_task_and_harm_no_other(server, run):
    """A broken image, a task without an image and an unknown task are reported; the others are pushed."""
    server.tasks = [task(1), task(2, "data:image/png;base64,AAAA"), {"id": 3, "project": 1, "data": {}}, task(4)]
    progress = run([1, 2, 3, 4, 77])
    assert server.imports == [[1, 4]]
    assert {failure.task_id: failure.message.partition(":")[0] for failure in progress.failures} == {
        2: "ImageCorrupt",
        3: "ImageUnavailable",
        77: "project 1 has no such task",
    }


def test_what_label_studio_refuses_is_reported(server, run):
    """One refused prediction does not prevent the rest of its batch; one that is silently left out is found."""
    server.refused, server.invalid = {1}, {2}
    progress = run()
    assert [one["task"] for one in server.predictions] == [3]
    assert sorted(failure.task_id for failure in progress.failures) == [1, 2]
    assert progress.pushed == 1


def test_a_label_studio_that_is_away_is_an_error(server, run):
    """No answer from Label Studio is an error, not an empty project."""
    server.is_down = True
    with pytest.raises(LabelStudioFailed, match="503"):
        run()


def test_another_run_in_between_is_noticed(server, run):
    """A task that another run has pre-annotated in the meantime is not pushed again."""

    def other_run(progress: Progress) -> None:
        if progress.annotated == 1 and not server.predictions:
            server.predictions = [{"id": 90, "task": 1, "model_version": VERSION, "result": []}]

    progress = run(on_progress=other_run)
    assert server.imports == [[2, 3]]
    assert progress.skipped == 1


def test_max_regions_and_min_score_bound_the_work(server, run, describer):
    """At most max_regions regions, best first; masks below the score are not described."""
    run([1], AnnotateOptions(max_regions=1))
    assert len([item for item in server.predictions[0]["result"] if item["type"] == "bitmasklabels"]) == 1
    asked = describer.num_asked
    run([2], AnnotateOptions(min_score=0.95))
    assert server.predictions[1]["result"] == []
    assert server.predictions[1]["score"] == 0
    assert describer.num_asked == asked
