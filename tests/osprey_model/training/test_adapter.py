"""Claims about adapter folders: PEFT reads them, they are merged for serving, a base of other sizes is an error."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from PIL import Image
from pycocotools import mask as coco_mask
from safetensors.torch import load_file

from osprey_model import Osprey, Question, RegionRequest
from osprey_model.data.mixture import read_data_config
from osprey_model.inputs.tokenizer import OspreyTokenizer
from osprey_model.training.data import Collator, open_data
from osprey_model.training.run import TrainingRun
from osprey_model.training.stages import STAGES
from osprey_model.training.train import train
from osprey_model.weights.adapter import AdapterMismatch, merge_adapter
from osprey_model.weights.build import load_osprey

QUESTION = Question("What is the category of {region}?", form="part", max_new_tokens=6)


@pytest.fixture(scope="module")
def adapter(nano: Path, scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train LoRA on osprey-nano for a few steps; return the adapter folder."""
    out = tmp_path_factory.mktemp("adapter") / "adapter"
    train(
        TrainingRun(
            "lora", nano, scenes / "region_data.json", out, max_steps=12, learning_rate=3e-3, cache_bytes=1 << 28,
            save_steps=12, progress=False,
        )
    )  # fmt: skip
    return out


def regions(scenes: Path) -> list[tuple[Image.Image, RegionRequest, str]]:
    """Return image, request and trained answer of every training region."""
    entries = json.loads((scenes / "region.json").read_text())
    found = []
    for entry in entries:
        mask = coco_mask.decode(entry["annotation"][0]["segmentation"]).astype(bool)
        image = Image.open(scenes / entry["file_name"]).convert("RGB")
        found.append(
            (image, RegionRequest(masks=(np.asarray(mask),), questions=(QUESTION,)), entry["conversations"][1]["value"])
        )
    return found


def test_served_adapter_answers_what_was_taught(adapter: Path, nano: Path, scenes: Path) -> None:
    """In the engine, the adapter gives the trained answers and the base model gives other ones."""
    base, served = Osprey.from_pretrained(nano), Osprey.from_pretrained(nano, adapter=adapter)
    assert served.model_version.startswith(f"{base.model_version}+adapter@")
    for image, region, taught in regions(scenes):
        assert served.describe(image, [region])[0][0].text == taught
        assert base.describe(image, [region])[0][0].text != taught


def test_merged_equals_peft(adapter: Path, nano: Path, scenes: Path) -> None:
    """The merged model has the same loss as the unmerged adapter that PEFT itself loads."""
    base = load_osprey(nano)
    data = open_data(
        scenes / "region_data.json", tokenizer=OspreyTokenizer.from_folder(nano), sizes=base.sizes,
        template=STAGES["lora"].template, read_image=lambda path: torch.zeros(3, 128, 128), seed=0, on_error="raise",
        check=True,
    )  # fmt: skip
    batch = Collator(0)([data[idx] for idx in range(4)])
    assert len(read_data_config(scenes / "region_data.json")) == 1
    merged = merge_adapter(load_osprey(nano), adapter, base=nano)
    with torch.no_grad():
        expected = PeftModel.from_pretrained(base, str(adapter)).eval()(**batch).loss
        torch.testing.assert_close(merged(**batch).loss, expected, atol=1e-4, rtol=1e-4)


def test_adapter_of_other_sizes_is_refused(adapter: Path, tiny: Path) -> None:
    """The error names the adapter, the base and a tensor with both shapes."""
    with pytest.raises(AdapterMismatch, match=r"adapter .* was not trained on a model of the sizes of .*expected \("):
        Osprey.from_pretrained(tiny, adapter=adapter)


def test_incomplete_adapter_folder_is_refused(adapter: Path, nano: Path, tmp_path: Path) -> None:
    """A folder without weights is an error; a written adapter contains projector and mask extractor."""
    shutil.copyfile(adapter / "adapter_config.json", tmp_path / "adapter_config.json")
    with pytest.raises(FileNotFoundError, match=r"adapter_model\.safetensors missing"):
        Osprey.from_pretrained(nano, adapter=tmp_path)
    names = load_file(adapter / "adapter_model.safetensors")
    assert any("mm_projector" in name for name in names)
    assert any("mask_extractor" in name for name in names)


def test_other_weights_of_the_same_sizes_are_reported(
    adapter: Path, nano: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Merging into another checkpoint than the one that the adapter records logs a warning with its name."""
    other = tmp_path / "other"
    shutil.copytree(nano, other, copy_function=shutil.copyfile)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "note": "changed"}))
    with caplog.at_level("WARNING"):
        merge_adapter(load_osprey(other), adapter, base=other)
    assert "was trained on nano" in caplog.text
