"""Losses of the small SAM: masks against soft coverage, and the dense maps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from demo.training.sam.data import NO_LEVEL, PART_CLASSES, Targets, TrainingScene
from demo.training.sam.model import CELLS_PER_TOKEN, DenseMaps

_OFFSET_CELLS = 16.0  # offsets are learned in this unit
_AREA_FLOOR_CELLS = 60.0


def mask_losses(logits_NHW: Tensor, coverage_NHW: Tensor) -> Tensor:
    """Compute cross entropy above its minimum plus soft dice, (N,).

    The cross entropy is summed and divided by the region's area, so that a small part weighs as much as a large
    object. The target's own entropy is subtracted, so that a perfect prediction has a loss of zero.
    """
    entropy = functional.binary_cross_entropy_with_logits(logits_NHW, coverage_NHW, reduction="none").sum((-1, -2))
    soft = coverage_NHW.clamp(1e-6, 1 - 1e-6)
    floor = -(soft * soft.log() + (1 - soft) * (1 - soft).log()).sum((-1, -2))
    area = coverage_NHW.sum((-1, -2))
    probability = logits_NHW.sigmoid()
    # |p - t| instead of the product form, which with soft targets is not smallest at p = t.
    missed = (probability - coverage_NHW).abs().sum((-1, -2))
    dice = missed / (probability.sum((-1, -2)) + area + 1.0)
    return (entropy - floor) / (area + _AREA_FLOOR_CELLS) + dice


def true_iou(logits_NHW: Tensor, coverage_NHW: Tensor) -> Tensor:
    """Compute the IoU of the thresholded masks at low resolution, (N,)."""
    predicted, truth = logits_NHW > 0, coverage_NHW > 0.5
    union = (predicted | truth).sum((-1, -2)).clamp_min(1)
    return (predicted & truth).sum((-1, -2)) / union


def dense_targets(scene: TrainingScene, targets: Targets) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Compute the targets of `DenseHead`: cells (7, h, w) and part classes (128, h/4, w/4)."""
    leaf_count, height, width = targets.coverage.shape
    flat = targets.coverage.reshape(leaf_count, -1)
    outside = targets.leaves == 0
    foreground = 1.0 - flat[outside].sum(axis=0)
    rows, columns = np.divmod(np.arange(height * width, dtype=np.float32), np.float32(width))
    maps = [foreground]
    borders, offsets = [], []
    # Level 2 is the object, level 1 the part; all leaves without a part form one group.
    for level in (2, 1):
        groups = scene.levels[targets.leaves, level]
        ids, of_leaf = np.unique(groups, return_inverse=True)
        # Coverage of each group: the sum over its leaves.
        grouping = np.zeros((len(ids), leaf_count), np.float32)
        grouping[of_leaf, np.arange(leaf_count)] = 1
        share = grouping @ flat
        # A cell that no group covers completely lies on a border.
        borders.append(np.minimum(1.0, 2.0 * (1.0 - share.max(axis=0))))
        # Each cell points to the centre of mass of the group that covers most of it.
        mass = np.maximum(share.sum(axis=1), 1e-6)
        center_rows, center_columns = share @ rows / mass, share @ columns / mass
        owner = share.argmax(axis=0)
        inside = ids[owner] != NO_LEVEL  # cells without a group keep zeros, which the loss leaves out
        offsets.append((center_rows[owner] - rows) / _OFFSET_CELLS * inside)
        offsets.append((center_columns[owner] - columns) / _OFFSET_CELLS * inside)
    # Part classes at token resolution: the mean coverage of the leaves of each class.
    cells = np.stack([*maps, *borders, *offsets]).reshape(-1, height, width).astype(np.float32)
    token_hw = (height // CELLS_PER_TOKEN, width // CELLS_PER_TOKEN)
    tokens = targets.coverage.reshape(leaf_count, token_hw[0], CELLS_PER_TOKEN, token_hw[1], CELLS_PER_TOKEN)
    classes = np.zeros((PART_CLASSES, *token_hw), np.float32)
    np.add.at(classes, scene.part_class[targets.leaves], tokens.mean(axis=(2, 4)))
    return cells, classes


def dense_loss(maps: DenseMaps, cells_BDHW: Tensor, classes_BKHW: Tensor) -> Tensor:
    """Compute one loss for all dense maps; the padding below the picture is left out."""
    height, width = cells_BDHW.shape[-2:]
    predicted = maps.cells[:, :, :height, :width].float()
    borders = functional.binary_cross_entropy_with_logits(predicted[:, :3], cells_BDHW[:, :3])
    known = cells_BDHW[:, :1] * (cells_BDHW[:, 3:] != 0)
    errors = functional.smooth_l1_loss(predicted[:, 3:], cells_BDHW[:, 3:], beta=0.2, reduction="none")
    offsets = (errors * known).sum() / (known.sum() + 1.0)
    token_height, token_width = classes_BKHW.shape[-2:]
    log_probability = maps.classes[:, :, :token_height, :token_width].float().log_softmax(dim=1)
    weight = 0.1 + 0.9 * (1.0 - classes_BKHW[:, 0])  # most tokens are background
    names = -((classes_BKHW * log_probability).sum(dim=1) * weight).sum() / weight.sum()
    return 2.0 * borders + 2.0 * offsets + 0.3 * names
