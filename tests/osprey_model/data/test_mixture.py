"""Bad entries raise an error or are left out; random choices can be repeated; names and masks stay paired."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from osprey_model.data.json_index import BadFile
from osprey_model.data.mixture import (
    READERS,
    BadEntry,
    DataFile,
    MixtureDataset,
    SampleBuilder,
    Source,
    read_data_config,
)
from osprey_model.data.records import FirstDraws, PixelReader, RandomDraws
from osprey_model.inputs.preprocess import ImagePreprocessor
from osprey_model.inputs.tokenizer import OspreyTokenizer

Edit = Callable[[dict[str, Any]], None]


@pytest.fixture
def data(golden_dir: Path, tmp_path: Path) -> Path:
    """A writable copy of the golden annotation files and images."""
    return Path(shutil.copytree(golden_dir / "data", tmp_path / "data", copy_function=shutil.copyfile))


def short_form(data: Path, *edits: Edit) -> DataFile:
    """The short-form file with one copy of its first entry per edit, edited, before the original entries."""
    path = data / "osprey_short_form.json"
    original = path.read_text()
    edited = []
    for edit in edits:
        entry = json.loads(original)[0]
        edit(entry)
        edited.append(entry)
    path.write_text(json.dumps([*edited, *json.loads(original)]))
    return DataFile("OspreyShortForm", path, data / "imgs")


def mixture(golden_dir: Path, *sources: Source, **options: Any) -> MixtureDataset:
    tokenizer = OspreyTokenizer.from_folder(golden_dir / "tokenizer")
    return MixtureDataset(sources, SampleBuilder(tokenizer, PixelReader(ImagePreprocessor(32))), **options)


BAD: dict[str, Edit] = {
    "no conversations": lambda entry: entry.pop("conversations"),
    "no height": lambda entry: entry.pop("height"),
    "odd height": lambda entry: entry.update(height=-3),
    "question without answer": lambda entry: entry["conversations"].pop(),
    "text of a wrong type": lambda entry: entry["conversations"][0].update(value=5),
    "annotation without segmentation": lambda entry: entry["annotation"][0].pop("segmentation"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_entry_is_named_or_skipped(what: str, data: Path) -> None:
    """The error names file and index; with on_error="skip" only this entry is left out, and it is listed."""
    file = short_form(data, lambda _: None, BAD[what])
    with pytest.raises(BadEntry, match=r"osprey_short_form\.json, entry 1: "):
        Source(file)
    source = Source(file, on_error="skip")
    assert len(source) == 3
    assert [problem.where for problem in source.skipped] == [1]
    assert source.num_empty == 1  # the golden file's entry without conversation


BAD_WHEN_READ: dict[str, Edit] = {
    "missing image": lambda entry: entry.update(file_name="nowhere.png"),
    "short polygon": lambda entry: entry["annotation"][0].update(segmentation=[[1, 2, 3, 4]]),
    "empty mask": lambda entry: entry["annotation"][0].update(segmentation=[[900, 900, 910, 900, 910, 910]]),
    "RLE of another size": lambda entry: entry["annotation"][0].update(segmentation={"size": [2, 2], "counts": [4]}),
    "RLE too short": lambda entry: entry["annotation"][0].update(segmentation={"size": [60, 80], "counts": [4]}),
    "no segmentation": lambda entry: entry["annotation"][0].update(segmentation=None),
}


@pytest.mark.parametrize("what", BAD_WHEN_READ)
def test_a_bad_image_or_mask_is_named_or_replaced(what: str, data: Path, golden_dir: Path) -> None:
    """The error names file and index; with on_error="skip" the next sample replaces it, and it is listed."""
    source = Source(short_form(data, BAD_WHEN_READ[what]))
    with pytest.raises(BadEntry, match=r"osprey_short_form\.json, entry 0: "):
        mixture(golden_dir, source)[0]
    skipping = mixture(golden_dir, source, on_error="skip")
    assert skipping[0].ids == skipping[1].ids
    (problem,) = skipping.replaced()
    assert problem.where == 0


def test_an_annotation_of_no_image_is_reported(data: Path) -> None:
    """In COCO format, the error names the index of an annotation whose image does not exist."""
    path = data / "coco.json"
    content = json.loads(path.read_text())
    content["annotations"][2]["image_id"] = 999
    path.write_text(json.dumps(content))
    file = DataFile("coco_data", path, data / "imgs")
    with pytest.raises(BadEntry, match=r"coco\.json, annotation 2: .*999"):
        Source(file)
    source = Source(file, on_error="skip")
    assert (len(source), source.num_empty) == (1, 1)


@pytest.mark.parametrize("text", ["", "[{}", '[{"a": 1} {"b": 2}]', "[1, 2]", '[{"a": [}]', "{}", "[{},]"])
def test_a_broken_file_is_refused(text: str, tmp_path: Path) -> None:
    """Truncated JSON and a wrong layout raise an error; they are not read as an empty data set."""
    path = tmp_path / "broken.json"
    path.write_text(text)
    with pytest.raises(BadFile, match=r"broken\.json"):
        Source(DataFile("OspreyShortForm", path, tmp_path))


def test_brackets_and_quotes_in_texts_do_not_split_entries(data: Path) -> None:
    """A text may contain brackets, quotes and backslashes."""
    awkward = 'a "quoted" ]}{[ \\ text'
    file = short_form(data, lambda entry: entry["conversations"][1].update(value=awkward))
    assert Source(file).record(0, FirstDraws()).turns[0][1] == awkward


def test_yes_no_masks_follow_the_names(data: Path) -> None:
    """Masks are in the order in which the text names the regions; the reference pairs them wrongly."""
    path = data / "osprey_lvis_positive_negative.json"
    file = DataFile("OspreyLVISPosNeg", path, data / "imgs")
    in_order = Source(file).record(0, FirstDraws()).masks()
    text = path.read_text()
    swapped = text.replace("<region1>", "<regionX>").replace("<region2>", "<region1>").replace("<regionX>", "<region2>")
    path.write_text(swapped)
    assert (Source(file).record(0, FirstDraws()).masks() == in_order[::-1]).all()
    path.write_text(text.replace("<region2>", "<region7>"))
    with pytest.raises(BadEntry, match="region 7"):
        Source(file)


def test_vcr_names_are_corrected_by_default(data: Path) -> None:
    """Object 2 is a person; the released code gives it the class of object 3."""
    images, path = data / "vcr", data / "vcr" / "train.jsonl"
    corrected = Source(DataFile("vcr", path, images)).record(0, FirstDraws()).turns
    released = Source(DataFile("vcr_released", path, images)).record(0, FirstDraws()).turns
    assert corrected[0][0].endswith("Why is person at region1 looking at person at region2 ?")
    assert released[0][0].endswith("Why is person at region1 looking at chair at region2 ?")


def test_choices_depend_on_seed_epoch_and_index_only(data: Path, golden_dir: Path) -> None:
    """A sample read twice is equal; its question's wording changes from epoch to epoch."""
    source = Source(DataFile("VGDATA", data / "vg.json", data / "imgs"))
    dataset = mixture(golden_dir, source, seed=3)
    first = dataset[0].ids.input_ids
    assert dataset[0].ids.input_ids == first == mixture(golden_dir, source, seed=3)[0].ids.input_ids
    wordings = set()
    for epoch in range(6):
        dataset.set_epoch(epoch)
        wordings.add(tuple(dataset[0].ids.input_ids))
    assert len(wordings) > 1


def test_a_sample_has_at_most_so_many_regions(data: Path) -> None:
    """A Visual Genome sample has three of an image's regions, drawn again each time."""
    path = data / "vg.json"
    content = json.loads(path.read_text())
    original = content["annotations"][0]
    content["annotations"] = [{**original, "id": idx, "caption": f"thing {idx}"} for idx in range(8)]
    path.write_text(json.dumps(content))
    draws = RandomDraws(torch.Generator().manual_seed(0))
    source = Source(DataFile("VGDATA", path, data / "imgs"))
    drawn = {tuple(answer for _, answer in source.record(0, draws).turns) for _ in range(5)}
    assert {len(answers) for answers in drawn} == {3}
    assert len(drawn) > 1


def test_a_data_config_names_files_relative_to_itself(data: Path, golden_dir: Path) -> None:
    """Paths are relative to the config's folder; the rows form one data set, in their order."""
    rows = [
        {"type": "OspreyShortForm", "ann_file": "osprey_short_form.json", "img_prefix": "imgs"},
        {"type": "coco_data", "ann_file": "coco.json", "img_prefix": "imgs"},
    ]
    (data / "stage.json").write_text(json.dumps(rows))
    dataset = mixture(golden_dir, *(Source(file) for file in read_data_config(data / "stage.json")))
    assert [int(dataset[idx].masks.shape[0]) for idx in range(len(dataset))] == [2, 1, 2, 1]
    (data / "stage.json").write_text(json.dumps([{"type": "vcr"}]))
    with pytest.raises(ValueError, match="img_prefix"):
        read_data_config(data / "stage.json")


def test_an_unknown_type_lists_the_known_ones(data: Path) -> None:
    """The error for an unknown type lists all known types."""
    with pytest.raises(ValueError, match="OspreyConversations") as caught:
        Source(DataFile("OspreyConversation", data / "coco.json", data))
    assert all(name in str(caught.value) for name in READERS)
