"""Claims about losses: each is smallest at its target."""

import numpy as np
import torch

from demo.scenes import make_scene
from demo.training.sam.data import PART_CLASSES, targets_of, training_scene
from demo.training.sam.losses import dense_loss, dense_targets, mask_losses, true_iou
from demo.training.sam.model import DenseMaps


def test_a_perfect_soft_mask_costs_nothing():
    """Logits of the coverage itself give zero, anything else more, also at half-covered cells."""
    coverage = torch.tensor([[[0.001, 0.25, 0.999], [0.5, 0.75, 0.01]]])
    perfect = torch.logit(coverage)
    assert mask_losses(perfect, coverage).item() < 1e-4
    for other in (perfect + 0.5, perfect - 0.5, 3 * perfect):
        assert mask_losses(other, coverage).item() > mask_losses(perfect, coverage).item() + 1e-3


def test_missing_a_small_part_costs_as_much_as_missing_a_large_object():
    """The loss of predicting nothing does not shrink with the region's size as plain BCE's does."""
    small, large = torch.zeros(1, 96, 128), torch.zeros(1, 96, 128)
    small[:, :8, :8], large[:, :32, :32] = 1, 1
    nothing = torch.full((1, 96, 128), -4.0)
    ratio = mask_losses(nothing, small) / mask_losses(nothing, large)
    assert 0.5 < ratio.item() < 1.5


def test_true_iou_of_known_masks():
    """Half of a mask is IoU 0.5; two empty masks count as 0."""
    truth = torch.zeros(2, 2, 2)
    truth[0] = 1
    logits = torch.full((2, 2, 2), -1.0)
    logits[0, 0] = 1
    assert true_iou(logits, truth).tolist() == [0.5, 0.0]


def test_dense_targets_are_their_own_best_answer():
    """Maps equal to the targets have a lower loss than maps of zeros, and centres point inwards."""
    scene = training_scene(make_scene(2), 256)
    cells, classes = (torch.from_numpy(t)[None] for t in dense_targets(scene, targets_of(scene, 4)))
    assert classes.shape == (1, PART_CLASSES, 24, 32)
    torch.testing.assert_close(classes.sum(dim=1), torch.ones(1, 24, 32))
    right = cells.clone()
    right[:, :3] = torch.logit(cells[:, :3].clamp(1e-4, 1 - 1e-4))
    perfect = DenseMaps(right, classes.clamp_min(1e-6).log())
    zeros = DenseMaps(torch.zeros_like(cells), torch.zeros_like(classes))
    assert dense_loss(perfect, cells, classes) < 0.4 * dense_loss(zeros, cells, classes)
    mask = scene.members[0][scene.region_map].reshape(96, 4, 128, 4).all(axis=(1, 3))
    top, bottom = np.nonzero(mask.any(axis=1))[0][[0, -1]]
    down = cells[0, 3].numpy()
    assert down[top][mask[top]].mean() > 0 > down[bottom][mask[bottom]].mean()
