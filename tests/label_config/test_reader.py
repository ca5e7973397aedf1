"""Claims about reading any project's labeling config."""

from __future__ import annotations

from pathlib import Path

import pytest

import label_config
from label_config.reader import read_label_config

READY = Path(label_config.__file__).parent


@pytest.mark.parametrize("kind", ["bitmask", "polygon", "brush"])
def test_ready_config(kind):
    """Each config we ship gives click and box prompts, its output, the five roles and a notice control."""
    read = read_label_config((READY / f"{kind}.xml").read_text(encoding="utf-8"))
    assert [(prompt.name, prompt.kind, prompt.labels) for prompt in read.prompts] == [
        ("click", "keypoint", ()),
        ("box", "rectangle", ()),
    ]
    assert (read.output.kind, read.output.result_type) == (kind, f"{kind}labels")
    assert read.output.labels == ("Object", "Part")
    assert {field.role for field in read.fields} == {
        "category", "part", "attribute", "short_description", "detailed_description",
    }  # fmt: skip
    assert [field.multiple for field in read.fields if field.role == "attribute"] == [True]
    assert (read.image_name, read.image_key, read.notice, read.notes) == ("image", "image", "notice", ())
