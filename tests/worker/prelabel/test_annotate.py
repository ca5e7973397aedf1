"""The small real models find, nest and name drawn objects, and share embeddings with the workers of clicks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import label_config
from demo.scenes import make_scene
from job_queue.mask_codec import decode_mask
from label_config.reader import read_label_config
from tests.support.fake_models import FakeDescriber, FakeSegmenter
from worker.images.resolver import ResolvedImage
from worker.prelabel.annotate import AnnotateOptions, ImageAnnotator
from worker.prelabel.local_models import load_annotator
from worker.prelabel.overlay import draw_overlay
from worker.sam.embedding_store import EmbeddingStore
from worker.settings import Settings
from worker.shared_embedding import embed_shared

SEED = 30_200_001  # of no split


def test_drawn_objects_are_found_named_and_have_their_parts():
    """Every drawn object is a region without a parent, of the right category, with its parts nested in it."""
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


@pytest.mark.redis
def test_an_image_is_encoded_once_for_clicks_and_for_whole_projects(redis_client):
    """Embeddings of the workers of clicks are used here, and the other way round."""
    config = read_label_config(Path(label_config.__file__).with_name("bitmask.xml").read_text())
    store = EmbeddingStore(redis_client, 60, 2**20)
    clicked, opened = (ResolvedImage(Image.new("RGB", (64, 48), color), color) for color in ("red", "blue"))
    of_clicks, of_projects = FakeSegmenter(), FakeSegmenter()
    embed_shared(of_clicks, store, clicked)
    annotator = ImageAnnotator(of_projects, FakeDescriber(), AnnotateOptions(), store)
    for image in (clicked, opened):
        assert annotator.annotate(image, config).regions
    embed_shared(of_clicks, store, opened)
    assert (of_clicks.num_encoded, of_projects.num_encoded) == (1, 1)


def _iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())
