"""Claims about packed questions: their loss is the plain loss, computed faster."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from demo.scenes import make_scene
from demo.training.osprey.features import FeatureCache, compute_features, region_masks, waver
from demo.training.osprey.packing import PromptCoder, answer_losses, pack, run_prefix
from demo.training.tokenizer import train_tokenizer, write_tokenizer
from osprey_model.inputs.prompts import INFERENCE, PREFIX_P
from osprey_model.inputs.tokenizer import OspreyTokenizer
from osprey_model.weights.build import build_osprey


@pytest.fixture(scope="module")
def coder(tiny_config, tmp_path_factory) -> PromptCoder:
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder, train_tokenizer(["This is a red car."], ["red", "car"], tiny_config.vocab_size))
    return PromptCoder(OspreyTokenizer.from_folder(folder))


@pytest.fixture(scope="module")
def model(tiny_config):
    torch.manual_seed(0)
    return build_osprey(tiny_config).eval()


@pytest.fixture(scope="module")
def features(tmp_path_factory, model, drawn_scenes) -> FeatureCache:
    folder = tmp_path_factory.mktemp("features")
    for _ in compute_features(folder, model, drawn_scenes, 3, precision=torch.float32):
        pass
    return FeatureCache.open(folder, drawn_scenes.records)


def test_packed_loss_equals_the_loss_of_single_prompts(drawn_scenes, coder, model, features):
    """Questions with no, one and two regions, of two images in one batch, have the loss of the model's own forward."""
    kinds = ("picture", "color part", "relation check", "detailed object", "positive negative")
    questions = [
        (scene, next(item for item in features.records[scene].questions if item.kind == kind))
        for scene in (0, 2)
        for kind in kinds
    ]
    rows = pack(features, questions, [0, 2], coder, None)
    with torch.no_grad():
        prefix = run_prefix(model, coder, torch.from_numpy(features.image_tokens_NTC[[0, 2]]).float())
        losses_L, _, rows_L, _ = answer_losses(model, prefix, rows)
        for row, (scene, item) in enumerate(questions):
            single = _single_loss(model, coder, drawn_scenes, scene, item)
            assert losses_L[rows_L == row].mean().item() == pytest.approx(single, abs=2e-3)


def test_gradients_reach_the_projector_through_the_shared_prefix(coder, model, features):
    rows = pack(features, [(1, features.records[1].questions[0])], [1], coder, None)
    prefix = run_prefix(model, coder, torch.from_numpy(features.image_tokens_NTC[[1]]).float())
    answer_losses(model, prefix, rows)[0].mean().backward()
    weight = model.model.mm_projector.get_parameter("0.weight")
    assert weight.grad is not None
    assert weight.grad.abs().max() > 0


def test_a_wavering_mask_is_near_the_true_one_and_never_empty(drawn_scenes):
    masks = region_masks(drawn_scenes.region_maps_NHW[0], drawn_scenes.records[0])
    drawn = waver(masks, torch.Generator().manual_seed(1))
    assert (drawn.flatten(1).sum(1) > 0).all()
    true = torch.nn.functional.avg_pool2d(masks, 4) > 0.5
    whole = slice(0, drawn_scenes.records[0].num_objects)
    overlap = (drawn.bool() & true)[whole].flatten(1).sum(1) / (drawn.bool() | true)[whole].flatten(1).sum(1)
    assert overlap.min() > 0.7
    assert overlap.min() < 1


def test_a_region_map_gives_the_scene_s_own_masks(drawn_scenes):
    scene = make_scene(drawn_scenes.records[1].seed)
    masks = region_masks(drawn_scenes.region_maps_NHW[1], drawn_scenes.records[1])[:, 0].bool().numpy()
    for obj, mask in zip(scene.objects, masks, strict=False):
        assert np.array_equal(obj.mask, mask)


def _single_loss(model, coder, scenes, scene, item) -> float:
    """Compute the loss of transformers' forward on one whole prompt with its image and masks."""
    prompt = INFERENCE.prompt([(PREFIX_P + item.message, item.answer)])
    ids = coder.tokenizer.encode_prompt(prompt)
    labels = [-100] * len(ids)
    answer = coder.answer(item.answer)
    labels[-len(answer) :] = answer
    masks = region_masks(scenes.region_maps_NHW[scene], scenes.records[scene])[list(item.regions), 0]
    output = model(
        input_ids=torch.tensor([ids]),
        images=torch.from_numpy(scenes.images_N3SS[scene].astype(np.float32))[None],
        masks=[masks if len(masks) else None],
        labels=torch.tensor([labels]),
    )
    return output.loss.item()
