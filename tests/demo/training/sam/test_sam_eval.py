"""Claims about the evaluation, and about what the committed checkpoint reaches."""

from pathlib import Path

import numpy as np
import pytest

from demo.scenes import EVAL_SEEDS, TRAIN_SEEDS, make_scene
from demo.training.sam.sam_eval import VALIDATION_SEEDS, largest_trusted, measure
from worker.sam.segmenter import MaskWithLogits, SamSegmenter

CHECKPOINT = Path(__file__).parents[4] / "demo" / "checkpoints" / "sam-nano"


class PerfectSegmenter:
    """Answers every click with the true masks under it, in rising size."""

    def embed(self, image, image_key):
        self.scene = make_scene(int(image_key))

    def segment(self, image_key, points_px, labels):
        (x, y), _ = points_px[0], labels
        regions = [
            region
            for thing in self.scene.objects
            for part in thing.parts
            for region in (thing, part, *part.subparts)
            if region.mask[y, x]
        ]
        logits = np.zeros((1, 1), dtype=np.float32)
        return sorted((MaskWithLogits.of_mask(r.mask, 0.9, 1.0, logits) for r in regions), key=lambda c: c.area_px)


def test_perfect_masks_measure_as_perfect():
    """With the true masks as answers every mean is one, so that lower figures come from the segmenter."""
    quality = measure(PerfectSegmenter(), EVAL_SEEDS[:2])
    assert (quality.object_iou, quality.part_iou, quality.part_misses) == (1.0, 1.0, 0.0)
    assert quality.num_objects == sum(len(make_scene(seed).objects) for seed in EVAL_SEEDS[:2])


def test_validation_scenes_are_far_from_where_training_reads():
    """Validation scenes are at the end of the training range, which 8000 training scenes never reach."""
    assert VALIDATION_SEEDS[0] > 100 * 8000
    assert VALIDATION_SEEDS[-1] == TRAIN_SEEDS[-1]


def test_the_largest_trusted_candidate_is_taken():
    """A large mask within 0.1 of the best score wins; a larger one beyond it does not."""
    masks = [np.arange(100).reshape(10, 10) < area for area in (10, 30, 90)]
    small, middle, large = (
        MaskWithLogits.of_mask(mask, score, 1.0, np.zeros((1, 1), np.float32))
        for mask, score in zip(masks, (0.95, 0.86, 0.6), strict=True)
    )
    assert largest_trusted([small, middle, large]) is middle


def test_the_committed_checkpoint_finds_objects():
    """The committed files belong together: the checkpoint finds the objects of two unseen scenes."""
    assert measure(SamSegmenter.load(CHECKPOINT), EVAL_SEEDS[:2]).object_iou > 0.8


@pytest.mark.slow
def test_the_committed_checkpoint_on_ten_unseen_scenes():
    """One click each: objects reach at least 0.85, parts at least 0.75; the model card has all figures."""
    quality = measure(SamSegmenter.load(CHECKPOINT), EVAL_SEEDS[-10:])
    assert quality.object_iou >= 0.85
    assert quality.part_iou >= 0.75


def test_a_box_and_a_correction_reach_the_object():
    """The single-mask token gives a box its object, and a negative click on it removes something."""
    segmenter, scene = SamSegmenter.load(CHECKPOINT), make_scene(EVAL_SEEDS[3])
    segmenter.embed(scene.image, "scene")
    thing = scene.objects[-1]
    rows, columns = np.nonzero(thing.mask)
    box = (float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1))
    (found,) = segmenter.segment("scene", box_px_xyxy=box)
    assert (found.mask & thing.mask).sum() / (found.mask | thing.mask).sum() > 0.75
    x, y = thing.parts[-1].inner_point_px
    (corrected,) = segmenter.segment("scene", [(x, y)], [0], previous_logits=found.logits)
    assert not corrected.mask[y, x]
