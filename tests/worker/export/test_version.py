"""Claims about the export: everything submitted is in it or named, it reads back, and it is the same twice."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from label_config.geometry import encode_bitmask_png
from tests.support.stored_annotations import region_mask_of, stored_annotation
from tests.support.submitted import CAR, CONFIG, PROJECT, WHEEL, annotation, region, task
from worker.export.osprey_724k import CONVERSATIONS, DESCRIPTIONS, FILES, PART_LEVEL, POSITIVE_NEGATIVE, SHORT_FORM
from worker.export.staging import ExportRefused
from worker.export.submissions import image_file_name
from worker.export.version import Export, ExportOptions, export_project, latest_version, read_export
from worker.mask_codec import decode_mask

ALL_TRAINED = ExportOptions(held_out_share=0.0)


def exported(tmp_path, *tasks, project=PROJECT) -> Export:
    """The tasks exported with nothing held out, and read back; entries by bare file name."""
    export = read_export(export_project(project, tasks, tmp_path / "out", ALL_TRAINED).path)
    return replace(export, entries={name.removeprefix("train/"): found for name, found in export.entries.items()})


def turns(entry: dict) -> list[tuple[str, str]]:
    """Questions and answers of an entry."""
    values = [turn["value"] for turn in entry["conversations"]]
    assert [turn["from"] for turn in entry["conversations"]] == ["human", "gpt"] * (len(values) // 2)
    return list(zip(values[::2], values[1::2], strict=True))


def street(**more):
    """A task with a car, its wheel, and a hand-drawn tree without texts."""
    suggestion = {"category": ["truck"], "attribute": ["red", "metal"]}
    return task(
        11,
        annotation(
            7,
            region("car00001", CAR, suggestion=suggestion, origin="prediction-changed"),
            region("wheel001", WHEEL, label="Part", parent="car00001"),
            region("tree0001", {}, origin="manual"),
            **more,
        ),
    )


def test_round_trip_of_every_region(tmp_path):
    """Mask, texts, suggestion, what was changed and who did it come back exactly."""
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


def test_five_files_say_what_the_texts_support(tmp_path):
    """Each text lands in its file, asked in the product's words, without the suffixes that the readers add."""
    entries = exported(tmp_path, street()).entries
    assert set(entries) == set(FILES)
    (short,), (part,) = entries[SHORT_FORM], entries[PART_LEVEL]
    assert turns(short) == [
        ("What is the category of <region1>?", "car"),
        ("What is the color of <region1>?", "blue"),
        ("What is the material of <region1>?", "metal"),
    ]
    # Nobody suggested the wheel's attributes, so which is the colour is not known.
    assert turns(part) == [
        ("What part is <region1>?", "wheel"),
        ("Which attributes does <region1> have?", "black, rubber"),
    ]
    assert turns(entries[CONVERSATIONS][0]) == [
        ("Please give me a short description of <region1>. Using a short phrase.", "a blue car")
    ]
    assert entries[DESCRIPTIONS][0]["description"] == ["<region1>: A blue metal car stands left of a tree."]
    assert sorted(turns(entries[POSITIVE_NEGATIVE][0])) == [
        ("Is the category of <region1> car?", "Yes."),
        ("Is the category of <region2> truck?", "No."),
    ] or sorted(turns(entries[POSITIVE_NEGATIVE][0])) == [
        ("Is the category of <region1> truck?", "No."),
        ("Is the category of <region2> car?", "Yes."),
    ]


def test_entries_have_the_layout_that_the_readers_want(tmp_path):
    """Every entry has name, size, and one annotation with box and RLE per region that its texts name, in order."""
    for name, found in exported(tmp_path, street()).entries.items():
        for entry in found:
            assert {"id", "file_name", "height", "width", "annotation", "weight"} < set(entry)
            assert (entry["width"], entry["height"]) == (1024, 768)
            assert "_" not in entry["file_name"]
            text = json.dumps(entry.get("description") or entry["conversations"])
            named = [int(number) for number in re.findall(r"<region(\d+)>", text)]
            assert sorted(set(named)) == list(range(1, len(entry["annotation"]) + 1))
            if name in (POSITIVE_NEGATIVE, DESCRIPTIONS):
                assert named == list(range(1, len(entry["annotation"]) + 1))
            for each in entry["annotation"]:
                mask = decode_mask(each["segmentation"])
                assert np.array_equal(mask, region_mask_of(each["region"]))
                assert len(each["bbox"]) == 4


def test_same_annotations_give_the_same_bytes(tmp_path):
    """In another order of tasks, into another folder, a second time: the same name and byte for byte the same."""
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
    """The old version stays as it is, `latest` points to the new one, and going back points to the old one again."""
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


@pytest.mark.parametrize("name", ["bitmask_and_brush_meta", "polygon", "vector"])
def test_annotations_recorded_from_label_studio(tmp_path, name):
    """Annotations as a real server stored them: every region comes back with mask, texts and meta."""
    stored = stored_annotation(name)
    export = exported(tmp_path, task(stored["task"], stored))
    assert {each.region for each in export.regions} == {item["id"] for item in stored["result"]}
    controls = {item["from_name"] for item in stored["result"]} - {"category", "short_description", "mask"}
    assert {problem.kind for problem in export.problems} <= {"control"}  # drawn under configs with other masks
    assert {re.findall(r"'(.*?)'", problem.problem)[0] for problem in export.problems} == controls
    for each in export.regions:
        assert np.array_equal(decode_mask(each.mask), region_mask_of(each.region))
        assert each.texts == {"category": ["car"], "short_description": ["a blue car"]}
        assert each.annotator == 1
    if name == "bitmask_and_brush_meta":
        assert [each.parent for each in export.regions] == [None, None, "meta00001"]
        assert [each.origin for each in export.regions] == ["manual", "prediction", "prediction"]


def test_texts_cannot_break_the_layout(tmp_path):
    """Placeholders, HTML, line breaks and lone surrogates in a text stay text; regions.jsonl keeps them as typed."""
    nasty = {
        "category": ["<b>car</b> {region} <region7>"],
        "detailed_description": ["<region2>: a\n\n<mask><pos> \ud83d </s> <image>"],
        "short_description": ["   "],
    }
    export = exported(tmp_path, task(1, annotation(1, region("car00001", nasty), region("car00002", CAR))))
    description = export.entries[DESCRIPTIONS][0]["description"]
    assert description[0] == "<region1>: region2: a maskpos \ud83d /s image"
    assert turns(export.entries[SHORT_FORM][0])[0] == ("What is the category of <region1>?", "bcar/b {region} region7")
    for question, _ in turns(export.entries[POSITIVE_NEGATIVE][0]):
        assert len(re.findall(r"<region\d+>", question)) == 1
    assert export.regions[0].texts["category"] == nasty["category"]
    assert set(export.regions[0].texts) == {"category", "detailed_description"}  # blanks are no text


def broken_items() -> dict[str, dict]:
    """One stored item per thing that can be wrong, by the words of the problem."""
    good = region("x0000001", {})[0]
    return {
        "cannot be read": good | {"id": "b1", "value": {"imageDataURL": "data:image/png;base64,AAAA"}},
        "1024x768 pixels, got": good | {"id": "b2", "value": {"imageDataURL": small_png()}},
        "has no area": good | {"id": "b3", "from_name": "point", "value": {"x": 1, "y": 2, "width": 0.2}},
        "still pending": good | {"id": "b4", "from_name": "box", "value": {"x": 1, "y": 2, "width": 5, "height": 5}},
        "belongs to 'text'": good | {"id": "b5", "to_name": "text"},
        "whole image": good | {"id": "b6", "type": "choices", "from_name": "quality", "value": {"choices": ["good"]}},
        "relation": {"type": "relation", "from_id": "a", "to_id": "b"},
        "no region id": {"type": "textarea", "value": {"text": ["x"]}},
        "expected an object": "text",  # type: ignore[dict-item]
        "covers no pixel": good | {"id": "b7", "type": "polygonlabels", "value": {"points": [[1, 1], [2, 1], [3, 1]]}},
        "original_width": good | {"id": "b8", "original_width": None},
    }


def small_png() -> str:
    """A bitmask of another size than its image."""
    return encode_bitmask_png(np.ones((4, 6), dtype=np.bool_))


@pytest.mark.parametrize("words", list(broken_items()))
def test_what_cannot_be_used_is_named_and_the_rest_exported(tmp_path, words):
    """An unusable item is a line of problems.jsonl with its task, annotation and region; the good region is there."""
    item = broken_items()[words]
    export = exported(tmp_path, task(4, annotation(8, [item], region("car00001", CAR))))
    assert [each.region for each in export.regions] == ["car00001"]
    (problem,) = export.problems
    assert words in problem.problem
    assert (problem.task, problem.annotation) == (4, 8)
    if (
        isinstance(item, dict)
        and item.get("id", "").startswith("b")
        and words not in ("whole image", "belongs to 'text'")
    ):
        assert problem.region == item["id"]
    assert export.manifest["counts"]["problems"] == 1


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (task(4, annotation(8, region("car00001", CAR))) | {"data": {}}, "no image under 'image'"),
        (task(4, {"result": []}), "annotation without a number"),
        ({"id": "x"}, "task without a number"),
        (task(4, annotation(8) | {"result": "text"}), "no list but str"),
    ],
)
def test_broken_task_is_named(tmp_path, broken, words):
    """A task or annotation that cannot be read is named and does not stop the others."""
    export = exported(tmp_path, broken, street())
    assert len(export.regions) == 3
    assert words in export.problems[0].problem


def test_regions_of_another_image_size_are_named(tmp_path):
    """All regions of an entry share one raster; one of another size is named instead of misplaced."""
    other = region("car00002", {})
    for item in other:
        item.update(original_width=6, original_height=4, value={"imageDataURL": small_png()})
    export = exported(tmp_path, task(4, annotation(8, region("car00001", CAR), other)))
    assert [each.region for each in export.regions] == ["car00001"]
    assert (export.problems[0].region, "image size" in export.problems[0].problem) == ("car00002", True)


def test_skipped_annotations_and_notices_are_no_data(tmp_path):
    """A skipped annotation is only counted; a message of the assistant is nobody's annotation."""
    notice = {
        "id": "n",
        "type": "textarea",
        "from_name": "notice",
        "to_name": "image",
        "value": {"text": ["no worker"]},
    }
    export = exported(tmp_path, street(), task(12, annotation(9, region("house001", CAR), was_cancelled=True)))
    assert export.manifest["counts"]["skipped_annotations"] == 1
    assert {each.annotation for each in export.regions} == {7}
    export = exported(tmp_path, task(4, annotation(8, [notice], region("car00001", CAR))))
    assert export.problems == ()


CLOSED = """<View><Image name="image" value="$image"/><KeyPoint name="click" toName="image"/>
  <BitmaskLabels name="mask" toName="image" smart="false"><Label value="Car"/><Label value="Tree"/></BitmaskLabels>
  <Choices name="wear" toName="image" perRegion="true" osprey_question="How worn is {region}?">
    <Choice value="brand new" alias="n"/><Choice value="old"/></Choices>
  <Taxonomy name="part" toName="image" perRegion="true"><Choice value="car"><Choice value="door"/></Choice></Taxonomy>
  <Rating name="quality" toName="image" perRegion="true"/></View>"""


def test_closed_controls_are_exported_in_words(tmp_path):
    """Aliases and paths become the words a person read; what is stored stays beside them, ratings too."""
    items = region("car00001", {}, label="Car")
    for name, kind, raw in (
        ("wear", "choices", ["n", "gone"]),
        ("part", "taxonomy", [["car", "door"]]),
        ("quality", "rating", 4),
    ):
        value = {**items[0]["value"], kind: raw}
        items.append({**items[0], "from_name": name, "type": kind, "value": value})
    export = exported(tmp_path, task(4, annotation(8, items)), project={**PROJECT, "label_config": CLOSED})
    (each,) = export.regions
    assert each.texts == {"wear": ["brand new", "gone"], "part": ["door"]}
    assert each.stored == {"wear": ["n", "gone"], "part": [["car", "door"]], "quality": 4}
    assert "no longer lists" in export.problems[0].problem
    assert ("How worn is <region1>?", "brand new, gone") in turns(export.entries[PART_LEVEL][0])


def test_label_is_the_category_where_no_control_asks(tmp_path):
    """In a config whose labels are categories, the label answers the category question; wrong ones come from others."""
    project = {**PROJECT, "label_config": CLOSED}
    regions = [region("car00001", {}, label="Car"), region("tree0001", {}, label="Tree")]
    export = exported(tmp_path, task(4, annotation(8, *regions)), project=project)
    assert [answer for _, answer in turns(export.entries[SHORT_FORM][0])] == ["Car", "Tree"]
    asked = {question.split()[-1]: answer for question, answer in turns(export.entries[POSITIVE_NEGATIVE][0])[:2]}
    assert asked == {"Car?": "Yes.", "Tree?": "No."}


@pytest.mark.parametrize(
    ("texts", "suggested", "paired"),
    [
        (["blue", "metal"], ["red", "metal"], True),
        (["blue", "metal"], ["blue", "metal"], True),
        (["metal", "blue"], ["blue", "metal"], False),
        (["metal", "green"], ["blue", "metal"], False),
        (["blue"], ["blue", "metal"], False),
        (["blue", "metal", "old"], ["blue", "metal"], False),
        (["wood", "red"], ["wood"], False),
        (["wood", "red"], None, False),
    ],
)
def test_colour_is_never_taught_as_material(tmp_path, texts, suggested, paired):
    """Attribute values answer colour and material only where their places are certain, else one joint question."""
    suggestion = None if suggested is None else {"attribute": suggested}
    export = exported(tmp_path, task(1, annotation(1, region("car00001", {"attribute": texts}, suggestion=suggestion))))
    questions = dict(turns(export.entries[SHORT_FORM][0]))
    if paired:
        assert questions == {
            "What is the color of <region1>?": texts[0],
            "What is the material of <region1>?": texts[1],
        }
    else:
        assert questions == {"Which attributes does <region1> have?": ", ".join(texts)}


def test_manifest_counts(tmp_path):
    """Counts, changes and model versions of the manifest add up; it names no time, address or person."""
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
    """No annotation at all: an export with a manifest of zeros."""
    export = exported(tmp_path)
    assert (export.regions, export.entries, export.manifest["counts"]["regions"]) == ((), {}, 0)


def test_config_with_windows_line_ends_reads_back(tmp_path):
    """A config pasted from Windows keeps its bytes, so that its hash holds."""
    export = exported(tmp_path, project={**PROJECT, "label_config": CONFIG.replace("\n", "\r\n")})
    assert "\r\n" in export.label_config


@pytest.mark.parametrize("spoil", ["change", "remove", "manifest", "version"])
def test_spoiled_export_is_refused(tmp_path, spoil):
    """A changed or missing file, a missing manifest or another schema is refused on reading."""
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


def test_other_files_are_left_alone(tmp_path):
    """Versions stand beside whatever the folder holds; a file in the place of the folder is refused."""
    (tmp_path / "thesis.txt").write_text("years of work")
    export_project(PROJECT, [street()], tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
    with pytest.raises(ExportRefused, match="is a file"):
        export_project(PROJECT, [street()], tmp_path / "thesis.txt")


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("/data/upload/3/f4b2e5a7-street_1.PNG", "task5-f4b2e5a7-street-1.png"),
        ("/data/local-files/?d=ds%2Fa%20b.jpg", "task5-a-b.jpg"),
        ("https://host/x/y.jpeg?token=secret", "task5-y.jpeg"),
        ("s3://bucket/über.png", "task5-ber.png"),
        ("https://host/", "task5-image"),
    ],
)
def test_image_names(url, name):
    """Names are plain, unique by task, and hold no underscore, at which the readers would cut."""
    assert image_file_name(5, url) == name


def test_image_inside_the_task_is_named_by_its_hash(tmp_path):
    """A picture inside the task's data does not land in the list of images, only its hash does."""
    url = "data:image/png;base64," + "A" * 1000
    export = exported(tmp_path, task(4, annotation(8, region("car00001", CAR)), url=url))
    ((name, shown),) = export.images.items()
    assert re.fullmatch(r"task4-[0-9a-f]{12}\.png", name)
    assert len(shown) < 120
