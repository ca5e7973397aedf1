"""The small real models find, nest and name what was drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import label_config
from demo.scenes import make_scene
from label_config.reader import read_label_config
from worker.images import ResolvedImage
from worker.mask_codec import decode_mask
from worker.prelabel.annotate import AnnotateOptions
from worker.prelabel.local_models import load_annotator
from worker.prelabel.overlay import draw_overlay
from worker.settings import Settings

SEED = 30_200_001  # of no split


def test_drawn_objects_are_found_named_and_have_their_parts():
    """Every object of a drawn scene is a region without a parent, of the right category, and parts hang below."""
    scene = make_scene(SEED)
    config = read_label_config(Path(label_config.__file__).with_name("bitmask.xml").read_text())
    annotator = load_annotator(Settings(), "cpu", AnnotateOptions(max_regions=12))
    annotated = annotator.annotate(ResolvedImage(scene.image, "scene"), config)
    assert 0 < annotated.score <= 1
    for thing in scene.objects:
        ious = [_iou(decode_mask(region.rle), thing.mask) for region in annotated.regions]
        best = annotated.regions[int(np.argmax(ious))]
        assert max(ious) > 0.7
        assert best.filled.values["category"] == [thing.category]
    parts = [region for region in annotated.regions if region.parent is not None]
    assert parts
    for part in parts:
        assert part.label == "Part"
        assert part.filled.values["part"] not in (["whole"], [])
    picture = draw_overlay(scene.image, annotated)
    assert picture.width > scene.image_wh[0]


def _iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())
