"""Claims about describing a folder, with the real small models on drawn scenes where answers matter."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from job_queue.mask_codec import decode_mask
from tests.support.fake_models import FakeDescriber, FakeSegmenter
from worker.prelabel.annotate import AnnotateOptions, ImageAnnotator
from worker.prelabel.folder import FolderProgress, config_of_questions, describe_folder

CONFIG = config_of_questions(["What is {region}?"])


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    (folder / "below").mkdir(parents=True)
    Image.new("RGB", (64, 48), "red").save(folder / "a.png")
    Image.new("RGB", (50, 70), "blue").save(folder / "below" / "b.JPG", "JPEG")
    (folder / "broken.png").write_bytes(b"no image")
    (folder / "notes.txt").write_text("not meant")
    return folder


def describe(images: Path, describer: FakeDescriber | None = None, **how) -> FolderProgress:
    annotator = ImageAnnotator(FakeSegmenter(), describer or FakeDescriber(), AnnotateOptions())
    out = images.parent / "out.jsonl"
    return describe_folder(images, out, annotator, CONFIG, images.parent / "pictures", 10_000_000, **how)


def lines(images: Path) -> list[dict]:
    return [json.loads(line) for line in (images.parent / "out.jsonl").read_text().splitlines()]


def test_one_line_per_image_and_a_broken_one_is_reported(images):
    """Every image has masks, boxes, texts and confidences; a broken one is reported and the run continues."""
    progress = describe(images)
    assert [failure.path for failure in progress.failures] == ["broken.png"]
    assert [line["image"] for line in lines(images)] == ["a.png", "below/b.JPG"]
    line = lines(images)[0]
    assert (line["width"], line["height"], len(line["regions"])) == (64, 48, 3)
    region = line["regions"][2]
    mask = decode_mask(region["mask"])
    assert mask.shape == (48, 64)
    assert mask.sum() == region["area"]
    x, y, width, height = region["bbox"]
    assert mask[y : y + height, x : x + width].sum() == region["area"]
    assert region["parent"] == 1
    assert region["fields"] == {
        "question_1": {"values": ["question_1 What is {region}?"], "confidence": 0.5},
    }
    assert sorted(path.name for path in (images.parent / "pictures").rglob("*.png")) == ["a.png.png", "b.JPG.png"]


def test_a_second_run_goes_on_behind_the_first(images):
    """Images with a line are not described again; an incomplete line, left by a kill, is replaced."""
    describe(images)
    out = images.parent / "out.jsonl"
    whole = out.read_bytes()
    out.write_bytes(whole.splitlines(keepends=True)[0] + whole.splitlines(keepends=True)[1][:50])
    describer = FakeDescriber()
    progress = describe(images, describer)
    assert (progress.skipped, progress.described) == (1, 1)
    assert describer.num_asked == 3
    assert out.read_bytes() == whole


def test_another_model_describes_again(images):
    """Lines of another model are kept and do not count."""
    describe(images)
    describe(images, FakeDescriber(model_version="osprey-fake-2"))
    assert [line["model_version"] for line in lines(images)] == ["osprey-fake-1"] * 2 + ["osprey-fake-2"] * 2


def test_a_file_of_something_else_is_left_alone(images):
    """A file of other lines than JSON is an error and is left unchanged."""
    out = images.parent / "out.jsonl"
    out.write_text("my thesis\n")
    with pytest.raises(ValueError, match="not JSON"):
        describe(images)
    assert out.read_text() == "my thesis\n"


def test_a_question_has_to_name_the_region():
    with pytest.raises(ValueError, match="exactly once"):
        config_of_questions(["What is this?"])
