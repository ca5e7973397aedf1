"""Every reader gives the samples of the reference's reader for the same files, without random choices."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from pycocotools import mask as coco_mask

from osprey_model.data.mixture import READERS, DataFile, SampleBuilder, Source
from osprey_model.data.records import FirstDraws, PixelReader
from osprey_model.inputs.preprocess import ImagePreprocessor
from osprey_model.inputs.prompts import TRAINING, image_first
from osprey_model.inputs.tokenizer import OspreyTokenizer


@pytest.fixture(scope="module")
def tokenizer(golden_dir: Path) -> OspreyTokenizer:
    return OspreyTokenizer.from_folder(golden_dir / "tokenizer")


def test_every_type_is_compared(golden_dir: Path) -> None:
    """There is a golden file for every reader that the reference has."""
    expected = json.loads((golden_dir / "data" / "expected.json").read_text())
    # The reference has no golden file of these: its own off-by-one names corrected, LLaVA, our packed questions.
    ours = {"vcr_released", "llava", "OspreyQuestions"}
    assert {facts["config_type"] for facts in expected.values()} == set(READERS) - ours


def test_reader_equals_the_reference(reader_name: str, golden_dir: Path, tokenizer: OspreyTokenizer) -> None:
    """Number of samples, prompts, ids, labels, masks and image statistics at size 512 equal the reference's."""
    folder = golden_dir / "data"
    facts = json.loads((folder / "expected.json").read_text())[reader_name]
    # The golden numbers have the reference's off-by-one class names.
    kind, images = (
        ("vcr_released", folder / "vcr") if facts["config_type"] == "vcr" else (facts["config_type"], folder / "imgs")
    )
    source = Source(DataFile(kind, folder / facts["file"], images))
    assert len(source) == facts["length"] == len(facts["samples"])
    for position, expected in enumerate(facts["samples"]):
        record = source.record(position, FirstDraws())
        turns = [(image_first(message), answer) for message, answer in record.turns]
        assert TRAINING.prompt(turns) == expected["prompt"]
        builder = SampleBuilder(tokenizer, PixelReader(ImagePreprocessor(512)))
        sample = source.sample(position, FirstDraws(), builder)
        assert sample.ids.input_ids == expected["input_ids"]
        assert sample.ids.labels == expected["labels"]
        assert sample.masks is not None
        assert sample.image is not None
        reference_masks = [torch.from_numpy(coco_mask.decode(rle)).float() for rle in expected["masks"]]
        assert [int(mask.sum()) for mask in sample.masks] == expected["mask_area"]
        torch.testing.assert_close(sample.masks, torch.stack(reference_masks), atol=0, rtol=0)
        assert list(sample.image.shape) == expected["image"]["shape"]
        for statistic in ("mean", "std"):
            got = getattr(sample.image, statistic)(dim=(1, 2))
            torch.testing.assert_close(got, torch.tensor(expected["image"][statistic]), atol=2e-4, rtol=0)
