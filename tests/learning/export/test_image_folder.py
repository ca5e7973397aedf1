"""Claims about the images of an export: each is written as its masks expect it, or a problem has the reason."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from learning.export.version import ExportOptions, read_export
from tests.support.exports import export_project
from tests.support.submitted import CAR, PROJECT, annotation, region, task
from worker.images.resolver import ImageResolver
from worker.settings import Settings

WH = (32, 24)
MASK = np.zeros((WH[1], WH[0]), np.bool_)
MASK[4:12, 5:20] = True
ALL_TRAINED = ExportOptions(held_out_share=0.0)


def picture(seed: int, image_wh: tuple[int, int] = WH, mode: str = "RGB") -> Image.Image:
    """Return an image of noise with a size and mode."""
    channels = {"RGB": 3, "RGBA": 4}[mode]
    pixels = np.random.default_rng(seed).integers(0, 255, (image_wh[1], image_wh[0], channels), np.uint8)
    return Image.fromarray(pixels)


def data_url(image: Image.Image, kind: str = "PNG", **options) -> str:
    """Return the image as it is inside a task's data."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


@pytest.fixture
def resolver(tmp_path):
    """Return the image resolver of the workers."""
    made = ImageResolver(Settings(cache_dir=tmp_path / "cache"))
    yield made
    made.close()


def scene(task_id: int, url: str):
    """Return a task with one region on this image."""
    return task(task_id, annotation(task_id, region(f"r{task_id}", CAR, mask=MASK)), url=url)


def test_images_are_copied_as_fetched(tmp_path, resolver):
    """A plain image keeps its bytes, the trainer's data config finds it, and the split names it."""
    url = data_url(picture(1), "JPEG", quality=80)
    version = export_project(PROJECT, [scene(1, url)], tmp_path / "out", ALL_TRAINED, resolver)
    export = read_export(version.path)
    (name,) = export.images
    assert (version.path / "images" / name).read_bytes() == base64.b64decode(url.partition(",")[2])
    assert export.entries["train/osprey_short_form.json"][0]["file_name"] == name
    assert export.sides == {name: "train"}
    assert export.manifest["counts"]["regions_taught"] == 1


@pytest.mark.parametrize(
    ("image", "kind", "options"),
    [(picture(2, mode="RGBA"), "PNG", {}), (picture(2, (24, 32)), "JPEG", {"exif": {0x0112: 6}})],
    ids=["transparent", "turned by EXIF"],
)
def test_what_a_trainer_would_see_differently_becomes_png(tmp_path, resolver, image, kind, options):
    """Transparency and EXIF rotation are resolved as on the annotator's page, so that masks fit."""
    if "exif" in options:
        exif = Image.Exif()
        exif.update(options["exif"])
        options = {"exif": exif}
    version = export_project(PROJECT, [scene(1, data_url(image, kind, **options))], tmp_path / "out", None, resolver)
    (name,) = read_export(version.path).images
    assert name.endswith(".png")
    with Image.open(version.path / "images" / name) as written:
        assert (written.size, written.mode) == (WH, "RGB")


def test_missing_and_broken_images_are_named_and_the_rest_is_taught(tmp_path, resolver):
    """A region with an unusable image stays in regions.jsonl, has a problem, and is in no training file."""
    tasks = [
        scene(1, data_url(picture(1))),
        scene(2, "http://127.0.0.1:9/gone.png"),
        scene(3, "data:image/png;base64,AAAA"),
        scene(4, data_url(picture(4, (31, 24)))),
        scene(5, "http://[::1"),
        scene(6, "/data/upload/1/x.png"),
    ]
    version = export_project(PROJECT, tasks, tmp_path / "out", ALL_TRAINED, resolver)
    export = read_export(version.path)
    assert {(each.task, each.region, each.kind) for each in export.problems} == {
        (idx, f"r{idx}", "image") for idx in (2, 3, 4, 5, 6)
    }
    assert export.manifest["problems"] == {"image": 5}
    assert len(export.regions) == 6
    assert {entry["id"] for entries in export.entries.values() for entry in entries} == {1}
    assert len(list((version.path / "images").iterdir())) <= 2


def test_near_copies_are_on_one_side(tmp_path, resolver):
    """Two uploads of the same photo, one as JPEG, are on the same side of the split."""
    smooth = picture(7, (4, 3)).resize((320, 240), Image.Resampling.BICUBIC)
    mask = np.zeros((240, 320), np.bool_)
    mask[50:90, 40:200] = True
    tasks = []
    for idx in range(1, 21):
        url = data_url(smooth, "JPEG", quality=95 - 2 * idx)
        tasks.append(task(idx, annotation(idx, region(f"r{idx}", CAR, mask=mask)), url=url))
    version = export_project(PROJECT, tasks, tmp_path / "out", ExportOptions(held_out_share=0.5), resolver)
    assert len(set(read_export(version.path).sides.values())) == 1
    apart = export_project(PROJECT, tasks, tmp_path / "out", ExportOptions(held_out_share=0.5))
    assert len(set(read_export(apart.path).sides.values())) == 2  # without images only addresses are compared


def test_card_shows_figures_and_samples(tmp_path, resolver):
    """README.md has counts, classes, acceptance and problems, and its pictures exist."""
    tasks = [scene(idx, data_url(picture(idx))) for idx in range(1, 9)]
    tasks[0]["annotations"][0]["result"][1]["value"]["text"] = ["<script>|car|</script>"]
    version = export_project(PROJECT, tasks, tmp_path / "out", ALL_TRAINED, resolver)
    card = (version.path / "README.md").read_text("utf-8")
    samples = sorted((version.path / "samples").iterdir())
    assert len(samples) == 6
    for path in samples:
        assert f"](samples/{path.name})" in card
        assert path.stat().st_size < 60_000
        with Image.open(path) as drawn:
            assert drawn.width == 360
    assert "| category | 8 |" in card
    assert "| car | 7 |" in card
    assert "<script>" not in card
