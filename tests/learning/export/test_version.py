"""Claims about an export: everything submitted is included or reported, reads back, and is the same twice."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest

from job_queue.mask_codec import decode_mask
from learning.export.osprey_724k import SHORT_FORM
from learning.export.staging import ExportRefused
from learning.export.version import latest_version, read_export
from tests.support.exports import ALL_TRAINED, export_project, exported, street
from tests.support.stored_annotations import region_mask_of
from tests.support.submitted import CAR, CONFIG, PROJECT, annotation, region, task


def test_round_trip_of_every_region(tmp_path):
    """Mask, values, suggestion, changed fields and annotator are read back exactly."""
    export = exported(tmp_path, street())
    car, wheel, tree = export.regions
    assert (car.task, car.annotation, car.region, car.annotator) == (11, 7, "car00001", 5)
    assert (car.texts, car.changed) == (CAR, ("attribute", "category", "detailed_description", "short_description"))
    assert car.suggestion == {"category": ["truck"], "attribute": ["red", "metal"]}
    assert (car.origin, car.model_version, car.confidence) == ("prediction-changed", "nano-1", {"category": 0.8})
    assert (car.notes, car.lead_time_s, car.score) == (("a note",), 6.9, 0.9)
    assert (wheel.parent, wheel.is_part, wheel.label) == ("car00001", True, "Part")
    assert (tree.texts, tree.suggestion, tree.changed, tree.origin) == ({}, None, (), "manual")
    for each in export.regions:
        mask = decode_mask(each.mask)
        assert np.array_equal(mask, region_mask_of(each.region))
        rows, columns = np.nonzero(mask)
        assert each.bbox == (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)
        assert each.area == mask.sum()
    assert export.label_config == CONFIG
    assert export.problems == ()


def test_same_annotations_give_the_same_bytes(tmp_path):
    """Another order of tasks, another folder and a repetition give the same name and the same bytes."""
    tasks = [street(), task(2, annotation(9, region("house001", {"category": ["house"]})))]
    one = export_project(PROJECT, tasks, tmp_path / "one")
    written = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in one.path.rglob("*") if path.is_file()}
    two = export_project(PROJECT, reversed(tasks), tmp_path / "two")
    again = export_project(PROJECT, tasks, tmp_path / "one")
    assert (one.is_new, two.is_new, again.is_new) == (True, True, False)
    assert one.path.name == two.path.name == again.path.name
    assert {path.relative_to(one.path): data for path, (data, _) in written.items()} == {
        path.relative_to(two.path): path.read_bytes() for path in two.path.rglob("*") if path.is_file()
    }
    for path, (_, modified_ns) in written.items():
        assert path.stat().st_mtime_ns == modified_ns
    assert again.manifest == one.manifest


def test_new_annotations_give_a_new_version_with_its_parent(tmp_path):
    """The old version stays, `latest` names the new one, and exporting the old content names the old one again."""
    out, more = tmp_path / "out", task(2, annotation(9, region("house001", {"category": ["house"]})))
    first = export_project(PROJECT, [street()], out)
    second = export_project(PROJECT, [street(), more], out)
    assert (first.manifest["parents"], second.manifest["parents"]) == ([], [first.path.name])
    assert second.manifest["label_config_changed"] is False
    assert latest_version(out, PROJECT["id"]) == second.path
    assert len(read_export(first.path).regions) == 3
    assert export_project(PROJECT, [street()], out).path == first.path
    assert latest_version(out, PROJECT["id"]) == first.path
    changed = {**PROJECT, "label_config": CONFIG + "\n"}
    assert export_project(changed, [street()], out).manifest["label_config_changed"] is True
    assert latest_version(out, 99) is None


def test_manifest_counts(tmp_path):
    """Counts, changes and model versions add up, and no file of the version contains an e-mail address."""
    manifest = exported(tmp_path, street()).manifest
    assert manifest["counts"] == {
        "tasks": 1, "annotations": 1, "skipped_annotations": 0, "regions": 3, "parts": 1, "problems": 0,
        "regions_taught": 3, "regions_without_text": 1, "regions_suggested": 1, "regions_changed": 1,
        "hard_negatives": 1,
    }  # fmt: skip
    assert manifest["fields"]["category"] == {
        "filled": 2, "suggested": 1, "accepted": 0, "changed": 1, "acceptance": 0.0,
    }  # fmt: skip
    assert manifest["model_versions"] == {"nano-1": 1, "none": 2}
    assert (manifest["classes"], manifest["annotators"]) == ({"car": 1}, {"5": 3})
    assert manifest["files"][f"train/{SHORT_FORM}"]["pairs"] == 3
    assert not any(b"example.com" in path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())


def test_empty_project_exports_nothing_but_says_so(tmp_path):
    """Without annotations the manifest has counts of zero."""
    export = exported(tmp_path)
    assert (export.regions, export.entries, export.manifest["counts"]["regions"]) == ((), {}, 0)


def test_config_with_windows_line_ends_reads_back(tmp_path):
    """A config with Windows line ends keeps its bytes, so that its hash holds."""
    export = exported(tmp_path, project={**PROJECT, "label_config": CONFIG.replace("\n", "\r\n")})
    assert "\r\n" in export.label_config


@pytest.mark.parametrize("spoil", ["change", "remove", "manifest", "version"])
def test_spoiled_export_is_refused(tmp_path, spoil):
    """A changed or missing file, a missing manifest or another schema version is refused."""
    out = export_project(PROJECT, [street()], tmp_path / "out", ALL_TRAINED).path
    if spoil == "change":
        (out / "regions.jsonl").write_text("", encoding="utf-8")
    elif spoil == "remove":
        (out / "train" / SHORT_FORM).unlink()
    elif spoil == "manifest":
        (out / "manifest.json").unlink()
    else:
        manifest = json.loads((out / "manifest.json").read_text()) | {"schema_version": 99}
        (out / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ExportRefused, match=r"complete export|export it again"):
        read_export(out)


def test_export_of_another_release_is_read(tmp_path):
    """Unknown keys in the manifest, a region or a problem are ignored; optional ones take their default."""
    options, problem = (
        {"held_out_share": 0.0},
        {"task": 1, "annotation": None, "region": None, "problem": "gone", "x": 1},
    )
    mask = {"size": [2, 3], "counts": "06"}
    required = {
        "task": 11, "annotation": 7, "region": "r", "annotator": None, "image": "i.png", "image_wh": [3, 2],
        "mask": mask, "bbox": [0, 0, 3, 2], "area": 6, "label": None, "parent": None, "is_part": False,
        "origin": "manual", "score": None, "texts": {"category": ["car"]}, "depth_m": 4.5,
    }  # fmt: skip
    files = {
        "label_config.xml": CONFIG.encode(),
        "regions.jsonl": json.dumps(required).encode() + b"\n",
        "problems.jsonl": json.dumps(problem).encode() + b"\n",
        "images.txt": b"i.png\t11\t/data/i.png\ttrain\t640x480\n",
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    records = {name: {"sha256": hashlib.sha256(data).hexdigest(), "codec": "raw"} for name, data in files.items()}
    manifest = {"schema_version": 2, "options": options, "files": records, "signature": "a key of another release"}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    export = read_export(tmp_path)
    (read,) = export.regions
    assert (read.texts, read.suggestion, read.changed, read.ground_truth) == ({"category": ["car"]}, None, (), False)
    assert [(each.problem, each.kind) for each in export.problems] == [("gone", "task")]
    assert (export.images, export.sides) == ({"i.png": "/data/i.png"}, {"i.png": "train"})
    assert (export.manifest["project"], export.manifest["parents"]) == ({}, [])
    assert export.manifest["options"] == options
    del records["regions.jsonl"]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ExportRefused, match=r"regions\.jsonl"):
        read_export(tmp_path)


def test_other_files_are_left_alone(tmp_path):
    """Other files beside the versions stay; a file in the place of the folder is refused."""
    (tmp_path / "thesis.txt").write_text("years of work")
    export_project(PROJECT, [street()], tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
    with pytest.raises(ExportRefused, match="is a file"):
        export_project(PROJECT, [street()], tmp_path / "thesis.txt")
