"""Claims about the tower's training: the fast convolution, the targets, and continuing after a stop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from demo.training.osprey.depthwise import fast_depthwise
from demo.training.osprey.features import region_masks
from demo.training.osprey.labels import CATEGORIES, RELATIONS, read_cells
from demo.training.osprey.tower import train_tower
from demo.training.osprey.tower_data import TowerData
from osprey_model.modeling.mask_extractor import read_mask
from osprey_model.modeling.vision_encoder import VisionEncoder


def test_the_fast_depthwise_convolution_has_the_plain_one_s_gradients():
    """The gradients agree within bfloat16's precision, and afterwards the module is unchanged."""
    torch.manual_seed(0)
    conv = nn.Conv2d(6, 6, 7, padding=3, groups=6)
    image = torch.randn(2, 6, 12, 12, requires_grad=True)
    wanted = torch.autograd.grad(conv(image).square().sum(), [image, conv.weight, conv.bias])
    with fast_depthwise(nn.Sequential(conv)):
        fast = conv(image)
        found = torch.autograd.grad(fast.float().square().sum(), [image, conv.weight, conv.bias])
    assert fast.dtype == torch.bfloat16
    for a, b in zip(wanted, found, strict=True):
        assert (a - b).norm() / a.norm() < 0.02
    assert conv(image).dtype == torch.float32


@pytest.mark.parametrize("grid", [64, 32, 16, 8])
def test_cells_are_read_as_the_mask_extractor_reads_masks(drawn_scenes, grid):
    record, region_map = drawn_scenes.records[0], drawn_scenes.region_maps_NHW[0]
    wanted = read_mask(region_masks(region_map, record), (grid, grid))
    for region, cells in zip(record.regions, wanted, strict=True):
        assert torch.equal(read_cells(region_map, region.leaf_values, grid), cells)


def test_a_mirrored_scene_swaps_left_and_right(drawn_scenes, tiny_config):
    data = TowerData(drawn_scenes, tiny_config.image_size)
    plain = data.sample(1, np.random.default_rng(0), mirrored=False)
    mirrored = data.sample(1, np.random.default_rng(0), mirrored=True)
    assert torch.equal(plain.image_3SS.flip(-1), mirrored.image_3SS)
    by_relation = plain.region_neighbours_RN.unflatten(-1, (len(RELATIONS), -1))
    swapped = by_relation[:, [RELATIONS.index(name) for name in ("right", "left", "above", "below")]]
    assert torch.equal(swapped.flatten(1), mirrored.region_neighbours_RN)
    assert not torch.equal(plain.region_neighbours_RN, mirrored.region_neighbours_RN)


def test_a_cell_in_an_object_names_its_category(drawn_scenes, tiny_config):
    sample = TowerData(drawn_scenes, tiny_config.image_size).sample(2, np.random.default_rng(0), mirrored=False)
    first = drawn_scenes.records[2].regions[0]
    cells = sample.cells["res3.category"][read_cells(drawn_scenes.region_maps_NHW[2], first.leaf_values, 8) > 0]
    assert (cells == 1 + CATEGORIES.index(first.category)).float().mean() > 0.5


def test_a_finished_stage_gives_its_averaged_weights_again(drawn_scenes, tiny_config, tmp_path):
    torch.manual_seed(0)
    tower = VisionEncoder(tiny_config)
    before = tower.state_dict()["vision_tower.visual.trunk.stem.0.weight"].clone()
    lines = [line for _, line in train_tower(tower, tiny_config, drawn_scenes, drawn_scenes, tmp_path / "t.pt", 0.01)]
    assert "unseen regions" in lines[-1]
    trained = tower.state_dict()["vision_tower.visual.trunk.stem.0.weight"]
    assert not torch.equal(before, trained)
    resumed = VisionEncoder(tiny_config)
    assert list(train_tower(resumed, tiny_config, drawn_scenes, drawn_scenes, tmp_path / "t.pt", 0.01)) == []
    assert torch.equal(resumed.state_dict()["vision_tower.visual.trunk.stem.0.weight"], trained)
