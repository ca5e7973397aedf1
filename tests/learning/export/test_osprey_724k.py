"""Claims about the five files: this project's readers and the released rules both get what was submitted."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from job_queue.mask_codec import decode_mask
from learning.export.click_questions import CLICK_QUESTIONS, CLICK_TYPES
from learning.export.osprey_724k import (
    CONVERSATIONS,
    DESCRIPTIONS,
    FILES,
    PART_LEVEL,
    POSITIVE_NEGATIVE,
    SHORT_FORM,
    TYPES,
)
from learning.export.version import ExportOptions, read_export
from osprey_model.data.mixture import DataFile, Source
from osprey_model.data.records import FirstDraws
from tests.support.exports import export_project, street, turns
from tests.support.exports import exported as read
from tests.support.stored_annotations import region_mask_of
from tests.support.submitted import CAR, PROJECT, annotation, region, task

NUM_ANNOTATIONS = 1000
WORDS = ["car", "Wall clock", "<b>dog</b>", "a <region1> tree", "region2: cat", "{region}", "<mask><pos>", "<image>",
         "naïve 犬", "two\nlines", '"quoted" ]}{[', "\ud83d", "</s>", "USER: hello"]  # fmt: skip


def drawn_items(rng: np.random.Generator, region_id: str, image_wh: tuple[int, int]) -> tuple[list[dict], dict]:
    """Return the result items of a random region, and the expected result."""
    width, height = image_wh
    rows, columns = np.ogrid[:height, :width]
    center_y, center_x = rng.integers(height), rng.integers(width)
    mask = ((columns - center_x) / rng.uniform(1, 9)) ** 2 + ((rows - center_y) / rng.uniform(1, 9)) ** 2 < 1
    if rng.random() < 0.3:
        mask |= rng.random(mask.shape) < 0.1  # holes and islands
    is_part = bool(rng.random() < 0.25)
    names = ("category", "part", "attribute", "short_description", "detailed_description")
    texts = {
        name: [str(rng.choice(WORDS)) for _ in range(rng.integers(1, 3) if name == "attribute" else 1)]
        for name in names
        if rng.random() < 0.7 and (name != "part" or is_part)
    }
    said_before = {name: [str(rng.choice(WORDS))] for name in texts if rng.random() < 0.5}
    suggestion = said_before if rng.random() < 0.7 else None
    items = region(region_id, texts, label="Part" if is_part else "Object", suggestion=suggestion, mask=mask)
    return items, {"mask": mask.tobytes(), "is_part": is_part, "texts": texts}


@pytest.fixture(scope="module")
def random_export(tmp_path_factory):
    """Export 1000 random annotations; return the export and what was drawn, by task."""
    rng = np.random.default_rng(0)
    tasks, drawn = [], {}
    for task_id in range(1, NUM_ANNOTATIONS + 1):
        image_wh = int(rng.integers(8, 40)), int(rng.integers(8, 40))
        made = [drawn_items(rng, f"r{task_id}-{idx}", image_wh) for idx in range(rng.integers(1, 7))]
        url = f"/data/upload/3/picture-{task_id}.png"
        tasks.append(task(task_id, annotation(task_id, *(items for items, _ in made)), url=url))
        drawn[task_id] = [expected for _, expected in made]
    version = export_project(PROJECT, tasks, tmp_path_factory.mktemp("out"), ExportOptions(held_out_share=0.3))
    return version, drawn


def cleaned(words: list[str]) -> str:
    """Clean a text as the layout does, written independently: no angle brackets, single spaces."""
    return " ".join(" ".join(words).replace("<", "").replace(">", "").split())


def said(version: Any, name: str) -> Counter:
    """Return (mask, question, answer) of every turn that the reader gives for one file, on both sides."""
    found: Counter = Counter()
    for side in ("train", "held_out"):
        source = Source(DataFile(TYPES[name], version.path / side / name, version.path / "images"))
        assert source.num_empty == 0
        for position in range(len(source)):
            record = source.record(position, FirstDraws())
            masks = [each.mask().tobytes() for each in record.regions]
            for idx, (question, answer) in enumerate(record.turns):
                asked = question.rsplit("picture: ", 1)[-1].split(". ", 1)[-1] if "picture: " in question else question
                numbers = re.findall(r"region(\d+)", asked)
                at = idx if name in (DESCRIPTIONS, POSITIVE_NEGATIVE) else int(numbers[0]) - 1
                found[masks[at], question, answer] += 1
    return found


def test_readers_give_the_same_regions_texts_and_masks(random_export):
    """Every text is read back with exactly its own mask (IoU 1.0), and no other text is read."""
    version, drawn = random_export
    regions = [each for made in drawn.values() for each in made if each["mask"].strip(b"\0")]
    for name, field in ((DESCRIPTIONS, "detailed_description"), (CONVERSATIONS, "short_description")):
        expected = Counter(
            (each["mask"], cleaned(each["texts"][field])) for each in regions if cleaned(each["texts"].get(field, []))
        )
        assert _without_question(said(version, name)) == expected
    short = said(version, SHORT_FORM)
    expected = Counter(
        (each["mask"], cleaned(each["texts"]["category"]))
        for each in regions
        if not each["is_part"] and cleaned(each["texts"].get("category", []))
    )
    categories = Counter({turn: n for turn, n in short.items() if "What is the category of" in turn[1]})
    assert _without_question(categories) == expected
    assert sum(said(version, PART_LEVEL).values()) >= sum(
        each["is_part"] and bool(cleaned(each["texts"].get("part", []))) for each in regions
    )
    yes = Counter({turn: n for turn, n in said(version, POSITIVE_NEGATIVE).items() if turn[2] == "Yes."})
    assert sum(yes.values()) == sum(expected.values())
    for mask, question, _ in yes:
        assert any(each == mask and f"{category}?" in question for each, category in expected)


def _without_question(turns: Counter) -> Counter:
    found: Counter = Counter()
    for (mask, _, answer), count in turns.items():
        found[mask, answer] += count
    return found


def test_reference_rules_hold(random_export):
    """By the released reader's rules, written again here, no entry of 1000 annotations confuses masks."""
    version, _ = random_export
    entries = read_export(version.path).entries
    assert {name.split("/")[1] for name in entries} == {*TYPES, *CLICK_TYPES}
    for name, found in entries.items():
        for entry in found:
            assert "_" not in entry["file_name"]
            for each in entry["annotation"]:
                decoded = coco_mask.decode(each["segmentation"])
                assert decoded.shape == (entry["height"], entry["width"])
                assert decoded.any()
            number = len(entry["annotation"])
            if name.endswith(DESCRIPTIONS):
                starts = [re.match(r"<region(\d+)>: ", text) for text in entry["description"]]
                assert [int(start.group(1)) for start in starts if start] == list(range(1, number + 1))
                assert not any(re.search(r"[<>]", text.split(": ", 1)[1]) for text in entry["description"])
                continue
            if name.endswith(CLICK_QUESTIONS):  # ours, with rules of its own
                assert {question["region"] for question in entry["questions"]} == set(range(1, number + 1))
                assert not any(re.search(r"[<>]", question["answer"]) for question in entry["questions"])
                continue
            assert [turn["from"] for turn in entry["conversations"]] == ["human", "gpt"] * (
                len(entry["conversations"]) // 2
            )
            questions = [turn["value"] for turn in entry["conversations"][::2]]
            named = [int(found) for text in questions for found in re.findall(r"<region(\d+)>", text)]
            assert len(named) == len(questions)
            assert sorted(set(named)) == list(range(1, number + 1))
            if name.endswith(POSITIVE_NEGATIVE):
                assert named == list(range(1, number + 1))
            assert not any(re.search(r"[<>]", turn["value"]) for turn in entry["conversations"][1::2])


def test_all_annotations_are_accounted_for(random_export):
    """Regions and problems in the manifest add up to the drawn ones, so nothing is lost without a problem."""
    version, drawn = random_export
    export = read_export(version.path)
    lost = {(each.task, each.region) for each in export.problems if each.kind == "mask"}
    kept = {(each.task, each.region) for each in export.regions}
    assert not lost & kept
    assert len(lost | kept) == sum(map(len, drawn.values()))
    assert lost == {
        (task_id, f"r{task_id}-{idx}")
        for task_id, made in drawn.items()
        for idx, each in enumerate(made)
        if not each["mask"].strip(b"\0")
    }


def exported(tmp_path, *tasks, **options):
    """Return the entries of the tasks by file, with nothing held out."""
    version = export_project(PROJECT, tasks, tmp_path, ExportOptions(held_out_share=0.0, **options))
    return {name.removeprefix("train/"): found for name, found in read_export(version.path).entries.items()}


def test_edited_answers_weigh_more(tmp_path):
    """Answers that an annotator wrote or changed have weight 3, accepted ones weight 1, in separate entries."""
    suggestion = {**CAR, "category": ["truck"]}
    made = region("car00001", CAR, suggestion=suggestion), region("tree0001", {"category": ["tree"]}, origin="manual")
    entries = exported(tmp_path, task(1, annotation(1, *made)))
    answers = {
        (turn["value"], entry["weight"])
        for entry in entries[SHORT_FORM]
        for turn in entry["conversations"]
        if turn["from"] == "gpt"
    }
    assert answers == {("car", 3.0), ("tree", 3.0), ("blue", 1.0), ("metal", 1.0)}
    assert [entry["weight"] for entry in entries[DESCRIPTIONS]] == [1.0]
    assert {entry["weight"] for entry in exported(tmp_path, task(1, annotation(1, *made)), edited_weight=7.0)[
        SHORT_FORM
    ]} == {1.0, 7.0}  # fmt: skip


def test_long_annotations_are_cut(tmp_path):
    """Sixty regions become several short entries, each numbered from 1 and with its own masks."""
    made = [region(f"car{idx:05}", CAR) for idx in range(60)]
    entries = exported(tmp_path, task(1, annotation(1, *made)))[SHORT_FORM]
    assert len(entries) > 1
    assert sum(len(entry["conversations"]) for entry in entries) == 60 * 2 * 2
    for entry in entries:
        assert sum(len(turn["value"]) for turn in entry["conversations"]) < 1600
        assert "<region1>" in entry["conversations"][0]["value"]


def test_wrong_category_is_the_corrected_mistake_or_one_that_is_absent(tmp_path):
    """A hard negative is the model's mistake; an easy one is never a category in the picture."""
    scenes = [
        task(1, annotation(1, region("a", {"category": ["cat"]}, suggestion={"category": ["dog"]}),
                           region("b", {"category": ["bird"]}))),
        task(2, annotation(2, region("c", {"category": ["cow"]}))),
    ]  # fmt: skip
    turns = [
        (entry["id"], entry["conversations"][idx]["value"], entry["conversations"][idx + 1]["value"])
        for entry in exported(tmp_path, *scenes)[POSITIVE_NEGATIVE]
        for idx in range(0, len(entry["conversations"]), 2)
    ]
    wrong = {(task_id, question.split()[-1]) for task_id, question, answer in turns if answer == "No."}
    assert (1, "dog?") in wrong
    assert (1, "cow?") in wrong  # the only one of the project that picture 1 does not show
    assert {name for task_id, name in wrong if task_id == 2} <= {"cat?", "bird?"}


def test_one_more_category_changes_few_wrong_ones(tmp_path):
    """A new category in the project leaves nearly all drawn negatives unchanged."""
    names = [f"thing {idx}" for idx in range(20)]
    made = [annotation(idx + 1, region(f"r{idx}", {"category": [names[idx % 20]]})) for idx in range(60)]
    scenes = [task(each["id"], each) for each in made]
    before = no_questions(exported(tmp_path / "one", *scenes))
    more = task(99, annotation(99, region("new", {"category": ["novelty"]})))
    after = no_questions(exported(tmp_path / "two", *scenes, more))
    changed = sum(before[key] != after[key] for key in before)
    assert 0 < changed + 1 <= 12  # one in twenty is expected: 3 of 60


def no_questions(entries) -> dict[int, str]:
    """Return the negative question of each task."""
    return {
        entry["id"]: entry["conversations"][idx]["value"].split("> ")[1]
        for entry in entries[POSITIVE_NEGATIVE]
        for idx in range(0, len(entry["conversations"]), 2)
        if entry["conversations"][idx + 1]["value"] == "No."
    }


def test_five_files_say_what_the_texts_support(tmp_path):
    """Each value is in its file, with the question of a click and without the suffixes that readers add."""
    entries = read(tmp_path, street()).entries
    assert set(entries) == {*FILES, *CLICK_TYPES}
    (short,), (part,) = entries[SHORT_FORM], entries[PART_LEVEL]
    assert turns(short) == [
        ("What is the category of <region1>?", "car"),
        ("What is the color of <region1>?", "blue"),
        ("What is the material of <region1>?", "metal"),
    ]
    # The wheel's attributes were not suggested, so it is not known which one is the colour.
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
    """Every entry has name and size, and box and RLE for each region that its texts name, in order."""
    for name, found in read(tmp_path, street()).entries.items():
        for entry in found:
            assert {"id", "file_name", "height", "width", "annotation"} < set(entry)
            weighted = entry["questions"] if name.endswith(CLICK_QUESTIONS) else [entry]
            assert all(each["weight"] in (1.0, 3.0) for each in weighted)
            assert (entry["width"], entry["height"]) == (1024, 768)
            assert "_" not in entry["file_name"]
            if name.endswith(CLICK_QUESTIONS):
                continue
            text = json.dumps(entry.get("description") or entry["conversations"])
            named = [int(number) for number in re.findall(r"<region(\d+)>", text)]
            assert sorted(set(named)) == list(range(1, len(entry["annotation"]) + 1))
            if name in (POSITIVE_NEGATIVE, DESCRIPTIONS):
                assert named == list(range(1, len(entry["annotation"]) + 1))
            for each in entry["annotation"]:
                mask = decode_mask(each["segmentation"])
                assert np.array_equal(mask, region_mask_of(each["region"]))
                assert len(each["bbox"]) == 4


def test_texts_cannot_break_the_layout(tmp_path):
    """Placeholders, HTML, line breaks and lone surrogates stay text; regions.jsonl keeps them as typed."""
    nasty = {
        "category": ["<b>car</b> {region} <region7>"],
        "detailed_description": ["<region2>: a\n\n<mask><pos> \ud83d </s> <image>"],
        "short_description": ["   "],
    }
    export = read(tmp_path, task(1, annotation(1, region("car00001", nasty), region("car00002", CAR))))
    description = export.entries[DESCRIPTIONS][0]["description"]
    assert description[0] == "<region1>: region2: a maskpos \ud83d /s image"
    assert turns(export.entries[SHORT_FORM][0])[0] == ("What is the category of <region1>?", "bcar/b {region} region7")
    for question, _ in turns(export.entries[POSITIVE_NEGATIVE][0]):
        assert len(re.findall(r"<region\d+>", question)) == 1
    assert export.regions[0].texts["category"] == nasty["category"]
    assert set(export.regions[0].texts) == {"category", "detailed_description"}  # blanks are no text


CLOSED = """<View><Image name="image" value="$image"/><KeyPoint name="click" toName="image"/>
  <BitmaskLabels name="mask" toName="image" smart="false"><Label value="Car"/><Label value="Tree"/></BitmaskLabels>
  <Choices name="wear" toName="image" perRegion="true" osprey_question="How worn is {region}?">
    <Choice value="brand new" alias="n"/><Choice value="old"/></Choices>
  <Taxonomy name="part" toName="image" perRegion="true"><Choice value="car"><Choice value="door"/></Choice></Taxonomy>
  <Rating name="quality" toName="image" perRegion="true"/></View>"""


def test_closed_controls_are_exported_in_words(tmp_path):
    """Aliases and paths become the displayed texts; the stored values are kept as well, also ratings."""
    items = region("car00001", {}, label="Car")
    for name, kind, raw in (
        ("wear", "choices", ["n", "gone"]),
        ("part", "taxonomy", [["car", "door"]]),
        ("quality", "rating", 4),
    ):
        value = {**items[0]["value"], kind: raw}
        items.append({**items[0], "from_name": name, "type": kind, "value": value})
    export = read(tmp_path, task(4, annotation(8, items)), project={**PROJECT, "label_config": CLOSED})
    (each,) = export.regions
    assert each.texts == {"wear": ["brand new", "gone"], "part": ["door"]}
    assert each.stored == {"wear": ["n", "gone"], "part": [["car", "door"]], "quality": 4}
    assert "no longer in the labeling config" in export.problems[0].problem
    assert ("How worn is <region1>?", "brand new, gone") in turns(export.entries[PART_LEVEL][0])


def test_label_is_the_category_where_no_control_asks(tmp_path):
    """If the labels are categories, the label answers the category question and wrong ones are other labels."""
    project = {**PROJECT, "label_config": CLOSED}
    regions = [region("car00001", {}, label="Car"), region("tree0001", {}, label="Tree")]
    export = read(tmp_path, task(4, annotation(8, *regions)), project=project)
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
    """Attribute values answer colour and material only if their order is certain, else one joint question."""
    suggestion = None if suggested is None else {"attribute": suggested}
    export = read(tmp_path, task(1, annotation(1, region("car00001", {"attribute": texts}, suggestion=suggestion))))
    questions = dict(turns(export.entries[SHORT_FORM][0]))
    if paired:
        assert questions == {
            "What is the color of <region1>?": texts[0],
            "What is the material of <region1>?": texts[1],
        }
    else:
        assert questions == {"Which attributes does <region1> have?": ", ".join(texts)}
