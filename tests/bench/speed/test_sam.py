"""Claims about what the SAM benchmark counts."""

from __future__ import annotations

import pytest
import typer

from bench.speed.click import read_size
from bench.speed.sam import _recall
from demo.scenes import make_scene
from job_queue.mask_codec import encode_mask


def test_recall_counts_what_is_there_and_what_is_not() -> None:
    """With all objects and one more mask, every object is found, no part is, and the extra mask is no true region."""
    scene = make_scene(5)
    masks = [encode_mask(thing.mask) for thing in scene.objects] + [encode_mask(scene.region_map == 0)]
    found = _recall([scene], [masks])
    assert found["recall_objects"] == 1.0
    assert found["recall_parts"] < 0.3
    assert found["recall_true_regions"] == round(len(scene.objects) / len(masks), 3)
    assert _recall([scene], [[]])["recall_objects"] == 0.0


def test_sizes_are_read_or_named() -> None:
    assert read_size("1920x1080") == (1920, 1080)
    with pytest.raises(typer.BadParameter, match="WIDTHxHEIGHT"):
        read_size("1080p")
