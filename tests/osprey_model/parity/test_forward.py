"""The whole forward pass against numbers of the reference implementation, stage by stage."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from osprey_model.config import IMAGE_TOKEN_ID, LEVELS
from osprey_model.inputs.preprocess import ImagePreprocessor
from osprey_model.modeling.mask_extractor import mask_pool, read_mask
from osprey_model.modeling.osprey import OspreyForCausalLM

ATOL_BEFORE_DECODER = 2e-5
ATOL_DECODER = 1e-4


@pytest.fixture
def case(case_name: str, golden_dir: Path) -> SimpleNamespace:
    facts = json.loads((golden_dir / "cases" / "cases.json").read_text())[case_name]
    return SimpleNamespace(
        name=case_name, facts=facts, tensors=load_file(golden_dir / "cases" / f"{case_name}.safetensors")
    )


def assert_matches(tensors: dict[str, Tensor], name: str, got: Tensor, atol: float) -> None:
    """Compare with the golden tensor `name`, if this copy of the set has it."""
    if name in tensors:
        torch.testing.assert_close(got, tensors[name], atol=atol, rtol=0, msg=lambda text: f"{name}: {text}")


def test_preprocessing(golden_dir: Path, golden_model: OspreyForCausalLM) -> None:
    """Four images of odd sizes give the reference's pixels in both steps."""
    expected = load_file(golden_dir / "preprocess" / "preprocess.safetensors")
    size = golden_model.sizes.image_size
    preprocess = ImagePreprocessor(size)
    names = [name for name in expected if name.startswith((f"out_{size}_", f"stage1_{size}_"))]
    assert names
    for name in names:
        step, _, idx = name.split("_")
        image = Image.open(golden_dir / "preprocess" / f"raw_{idx}.png")
        got = preprocess(image) if step == "out" else preprocess.shortest_edge(image)
        torch.testing.assert_close(got, expected[name].reshape(got.shape), atol=2e-4, rtol=0)


def test_preprocessing_at_the_released_size(golden_dir: Path) -> None:
    """At size 512 the pixels have the reference's probes and means."""
    for facts in json.loads((golden_dir / "preprocess" / "preprocess.json").read_text()):
        got = ImagePreprocessor(512)(Image.open(golden_dir / "preprocess" / f"raw_{facts['index']}.png"))
        torch.testing.assert_close(got.mean(dim=(1, 2)), torch.tensor(facts["out_512_mean"]), atol=2e-4, rtol=0)
        for channel, row, column, value in facts["out_512_probe"]:
            assert got[channel, row, column].item() == pytest.approx(value, abs=2e-4)


@torch.inference_mode()
def test_tower_and_image_tokens(case: SimpleNamespace, golden_model: OspreyForCausalLM) -> None:
    """The four raw stage outputs and the projected image tokens."""
    if "image" not in case.tensors:
        assert IMAGE_TOKEN_ID not in case.tensors["input_ids"]
        return
    levels = golden_model.encode_images(case.tensors["image"])
    for level in LEVELS:
        assert_matches(case.tensors, f"tower.{level}", levels[level], ATOL_BEFORE_DECODER)
    assert_matches(case.tensors, "image_tokens", golden_model.project(levels), ATOL_BEFORE_DECODER)


@torch.inference_mode()
def test_region_tokens(case: SimpleNamespace, golden_model: OspreyForCausalLM) -> None:
    """Pooled features, level sums, mask tokens, position masks and tokens, and the cells each mask hits."""
    if "masks" not in case.tensors:
        assert golden_model.sizes.mask_token_id not in case.tensors["input_ids"]
        return
    levels = golden_model.encode_images(case.tensors["image"])
    masks_R1HW = case.tensors["masks"][:, None].float()
    for level in LEVELS:
        cells = read_mask(masks_R1HW, levels[level].shape[-2:])
        assert_matches(case.tensors, f"sample0.pooled.{level}", mask_pool(levels[level][0], cells), ATOL_BEFORE_DECODER)
    tokens = golden_model.extract_regions(levels, case.tensors["masks"])
    assert_matches(case.tensors, "sample0.mask_tokens", tokens.mask_tokens_RD, ATOL_BEFORE_DECODER)
    assert_matches(case.tensors, "sample0.pos_tokens", tokens.position_tokens_RD, ATOL_BEFORE_DECODER)
    expected_cells = [case.facts["nonzero_cells_per_level"][level] for level in LEVELS]
    assert tokens.covered_cells_RL.T.tolist() == expected_cells


@torch.inference_mode()
def test_embeddings_hidden_states_and_logits(case: SimpleNamespace, golden_model: OspreyForCausalLM) -> None:
    """Merged embeddings, hidden states after each block and logits at every position."""
    masks = case.tensors.get("masks")
    batch = golden_model.embed_batch(
        case.tensors["input_ids"], case.tensors.get("image"), None if masks is None else [masks]
    )
    assert batch.inputs_embeds_BTD.shape[1] == case.facts["embeds_length"]
    assert_matches(case.tensors, "inputs_embeds", batch.inputs_embeds_BTD, ATOL_BEFORE_DECODER)
    outputs = golden_model(inputs_embeds=batch.inputs_embeds_BTD, output_hidden_states=True)
    for idx, hidden in enumerate(outputs.hidden_states):
        assert_matches(case.tensors, f"hidden.{idx}", hidden, ATOL_DECODER)
    assert_matches(case.tensors, "logits", outputs.logits, ATOL_DECODER)


@torch.inference_mode()
def test_greedy_ids(case: SimpleNamespace, golden_model: OspreyForCausalLM) -> None:
    """Greedy decoding gives the reference's ids and logits, `</s>` included."""
    masks = case.tensors.get("masks")
    batch = golden_model.embed_batch(
        case.tensors["input_ids"], case.tensors.get("image"), None if masks is None else [masks]
    )
    expected = case.tensors["generated_ids"].flatten().tolist()
    generated = golden_model.generate(
        inputs_embeds=batch.inputs_embeds_BTD,
        attention_mask=batch.attention_mask_BT,
        max_new_tokens=16,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
    )
    assert generated.sequences[0].tolist() == expected
    assert_matches(case.tensors, "generated_logits", torch.cat(generated.logits), ATOL_DECODER)
