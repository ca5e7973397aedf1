"""Claims about the report page: it is complete and self-contained, and no text can become markup."""

from __future__ import annotations

import dataclasses
import json
import re
from datetime import UTC, datetime
from html.parser import HTMLParser

import pytest
from typer.testing import CliRunner

from cli.main import app
from job_queue.contracts import ImageRef
from learning.corrections.records import AnnotationState, TaskState
from learning.corrections.store import Store
from learning.report.figures import figures_of
from learning.report.report import write_report
from learning.report.version_history import Compared, Examined
from tests.support.corrections import corrected_source
from tests.support.scene_exports import scene_export
from tests.support.submitted import CONFIG
from worker.settings import Settings

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def source():
    return corrected_source(range(2_000_000, 2_000_012))


class Page(HTMLParser):
    """Parses a page into tags and attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


def written(source, tmp_path) -> str:
    write_report(
        source, Settings(cache_dir=tmp_path), tmp_path / "r.html", figures_file=tmp_path / "r.json", made_at=NOW
    )
    return (tmp_path / "r.html").read_text("utf-8")


def test_page_shows_every_figure_and_loads_nothing(source, tmp_path):
    """All sections are there, charts have names for screen readers, and no address or script is included."""
    text = written(source, tmp_path)
    page = Page(text)
    for heading in ("Corrections per 100", "How much was edited", "Seconds per region", "Accepted, by confidence",
                    "Blind regions", "Most frequent replacements", "The worst mistakes"):  # fmt: skip
        assert heading in text
    tags = [tag for tag, _ in page.tags]
    assert not {"script", "link", "iframe", "object"} & set(tags)
    pictures = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(pictures) == 12
    assert all(each["src"].startswith("data:image/jpeg;base64,") and each["alt"] for each in pictures)
    assert all(attributes.get("aria-label") for tag, attributes in page.tags if tag == "svg")
    assert not re.search(r"https?://|url\(|@import", text)
    figures = json.loads((tmp_path / "r.json").read_text())
    assert [each["model_version"].partition("@")[0] for each in figures["rounds"]] == ["osprey-nano", "v1", "v2"]
    assert figures["rounds"][0]["corrections_per_100"] > figures["rounds"][2]["corrections_per_100"]


def test_everything_people_wrote_is_escaped(source, tmp_path):
    """Markup in a value, a field's name, a version, an id and the title is shown as text."""
    evil = tuple(
        dataclasses.replace(each, region=dataclasses.replace(
            each.region, region=EVIL + each.region.region, model_version=EVIL, texts={EVIL: [EVIL], "x": ["y"]},
            suggestion={EVIL: ["other"], "x": ["y " + EVIL]}, confidence={EVIL: 0.9},
        ))
        for each in source.seen
    )  # fmt: skip
    text = written(dataclasses.replace(source, seen=evil, title=EVIL), tmp_path)
    page = Page(text)
    assert "script" not in [tag for tag, _ in page.tags]
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert all((attributes.get("src") or "data:").startswith("data:") for _, attributes in page.tags)
    assert "&lt;script&gt;" in text


def test_versions_stand_in_the_page_and_in_the_figures(source, tmp_path):
    """The registered versions are in the page and in the JSON file."""
    versions = (
        Examined("v1", "2026-11-20T10:00", "7-abc", "base", True, (), Compared(0.81, 0.64), Compared(0.975, 0.98),
                 "2026-11-20T11:00"),
        Examined("v2", "2026-11-21T10:00", "7-def", "v1", False, ("base", "field part"), None, None, None),
    )  # fmt: skip
    page, figures = tmp_path / "r.html", tmp_path / "r.json"
    write_report(
        source, Settings(cache_dir=tmp_path), page, figures_file=figures, made_at=NOW, versions=versions
    )  # fmt: skip
    text = page.read_text("utf-8")
    assert "81.0 % (64.0 %)" in text
    assert "97.5 % (98.0 %)" in text
    assert "base, field part" in text
    assert [each["name"] for each in json.loads(figures.read_text())["versions"]] == ["v1", "v2"]


def test_both_arms_of_the_queue_are_compared(source, tmp_path):
    """The section is shown only if there are two arms."""
    assert "Order of tasks" not in written(source, tmp_path)
    arms = tuple(
        dataclasses.replace(each, arm="random" if each.region.task % 2 else "uncertainty") for each in source.seen
    )
    assert "Order of tasks" in written(dataclasses.replace(source, seen=arms), tmp_path)


def test_image_that_is_gone_leaves_its_reason(source, tmp_path):
    """The gallery shows the reason for a missing image, and the rest of the page is complete."""
    gone = tuple(dataclasses.replace(each, image=ImageRef("data:image/png;base64,aGVsbG8=", 4)) for each in source.seen)
    text = written(dataclasses.replace(source, seen=gone), tmp_path)
    assert "replace the file" in text
    assert "The worst mistakes" in text


def test_project_without_suggestions_has_a_page(source, tmp_path):
    """Without suggestions, or without regions, the page says that there is nothing to compare."""
    bare = tuple(
        dataclasses.replace(each, is_blind=False, region=dataclasses.replace(each.region, suggestion=None))
        for each in source.seen
    )
    assert "No suggestions yet" in written(dataclasses.replace(source, seen=bare), tmp_path)
    assert "No suggestions yet" in written(dataclasses.replace(source, seen=()), tmp_path)


def test_command_reads_an_export_version(tmp_path):
    """`osprey report --data FOLDER --json FILE` writes both files; it wants exactly one source."""
    version = scene_export(tmp_path, range(3))
    page, figures = tmp_path / "page.html", tmp_path / "figures.json"
    runner = CliRunner()
    done = runner.invoke(app, ["report", "--data", str(version), "--out", str(page), "--json", str(figures)])
    assert done.exit_code == 0, done.output
    assert json.loads(figures.read_text())["counts"]["regions"] > 0
    assert page.read_text().startswith("<!doctype html>")
    assert runner.invoke(app, ["report"]).exit_code == 2
    assert runner.invoke(app, ["report", "--data", str(tmp_path / "none")]).exit_code == 1


def test_command_reads_the_correction_store(source, tmp_path, monkeypatch):
    """The report of the store has the figures of the stored regions, blind ones separately."""
    with Store.open(url := f"sqlite:///{tmp_path}/corrections.db") as store:
        config_hash = store.note_project(7, "Street scenes", CONFIG)
        for task in sorted({each.region.task for each in source.seen}):
            mine = [each for each in source.seen if each.region.task == task]
            blind = frozenset(each.region.region for each in mine if each.is_blind)
            regions = tuple(each.region for each in mine)
            annotation = AnnotationState(task, "digest", regions=regions, blind=blind, updated_at="2026-11-20")
            state = TaskState(7, task, "stamp", config_hash, mine[0].image.url, annotations=(annotation,))
            assert store.save(state, store.revision(7))
    monkeypatch.setenv("OSPREY_DATABASE_URL", url)
    page, figures = tmp_path / "page.html", tmp_path / "figures.json"
    done = CliRunner().invoke(app, ["report", "--project", "7", "--out", str(page), "--json", str(figures)])
    assert done.exit_code == 0, done.output
    expected = json.loads(json.dumps(figures_of(source.seen).to_json()))
    told = json.loads(figures.read_text())
    assert (told.pop("title"), told.pop("versions")) == ("Street scenes", [])
    assert told == expected
    assert page.read_text().count("data:image/jpeg") == 12


def test_project_that_nobody_collected_says_what_to_set(tmp_path, monkeypatch):
    """The error for a project that was never collected names the setting for Label Studio."""
    monkeypatch.setenv("OSPREY_DATABASE_URL", f"sqlite:///{tmp_path}/corrections.db")
    monkeypatch.delenv("OSPREY_LABEL_STUDIO_URL", raising=False)
    refused = CliRunner().invoke(app, ["report", "--project", "7", "--out", str(tmp_path / "page.html")])
    assert refused.exit_code == 1
    assert "OSPREY_LABEL_STUDIO_URL" in refused.output
