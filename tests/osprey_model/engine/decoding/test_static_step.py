"""The decode step in fixed shapes: captured and replayed on a GPU, run without a graph on a CPU."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from demo.scenes import make_scene
from osprey_model.config import OspreyConfig
from osprey_model.engine.decoding.decoder import NewRow, SharedPrefixDecoder
from osprey_model.engine.decoding.kv_cache import RowKv
from osprey_model.engine.decoding.rows import Row
from osprey_model.engine.decoding.static_step import StaticStep, power_of_two
from osprey_model.engine.engine import Osprey
from osprey_model.engine.requests import Answer, ImageRequest, Question, RegionRequest
from osprey_model.engine.running_batch import Budget, RunningBatch
from osprey_model.engine.scheduler import Scheduler
from osprey_model.inputs import prompts
from osprey_model.inputs.tokenizer import OspreyTokenizer
from osprey_model.modeling.osprey import OspreyForCausalLM
from osprey_model.weights.build import build_osprey
from tests.support.plain_answers import plain_answer

NANO = Path(__file__).parents[4] / "demo" / "checkpoints" / "osprey-nano"


def test_counts_go_up_to_powers_of_two() -> None:
    """Sizes are rounded up to powers of two: few shapes, and at most twice the work."""
    assert [power_of_two(number) for number in (1, 2, 3, 64, 65)] == [1, 2, 4, 64, 128]


@torch.no_grad()
def test_rows_of_several_images_in_one_grid(tiny_config: OspreyConfig) -> None:
    """Five rows behind three prefixes of two lengths, then of other images, have the logits of the plain step."""
    torch.manual_seed(0)
    decoder = SharedPrefixDecoder(build_osprey(dataclasses.replace(tiny_config, num_key_value_heads=2)).eval())
    prefixes = [decoder.prefill_prefixes(torch.randn(1, length, 32))[0] for length in (9, 12, 9, 5)]
    static = StaticStep(decoder, capture=False)
    for behind in ((0, 1, 1, 2, 0), (3, 1, 1, 2, 3), (2,)):
        kv, logits = RowKv(decoder.kv_shape, max_positions=1000), []
        kv.reserve(8, 16, num_used=0)
        new = [NewRow(torch.randn(3 + idx % 2, 32), prefixes[which]) for idx, which in enumerate(behind)]
        decoder.prefill_rows(new, kv, 0)
        for step in (None, static):
            rows = [
                Row(row.prefix, num_prompt=3, max_new_tokens=5, length=len(row.embeds_SD), next_token=7 + idx)
                for idx, row in enumerate(new)
            ]
            batch = RunningBatch(decoder, 2, Budget(), static=step)
            batch.kv, batch.rows = kv, rows
            batch.step()
            logits.append([row.token_logprobs[-1] for row in rows])
        assert logits[0] == pytest.approx(logits[1], abs=1e-5)


def test_slots_and_pool_may_move(osprey: Osprey, image: Image.Image, masks: list[np.ndarray]) -> None:
    """Answers stay the same when longer rows and more images need new memory while others run."""
    parts = dataclasses.replace(osprey._parts, static=lambda: StaticStep(osprey._decoder, capture=False))
    scheduler = Scheduler(parts, Budget())
    short, long = (Question(prompts.DETAILED_DESCRIPTION, max_new_tokens=n) for n in (8, 70))
    asked = [
        ImageRequest(image.rotate(90 * idx), (RegionRequest((masks[idx],), (question,)),))
        for idx, question in enumerate((short, long, long))
    ]
    got: dict[int, Answer] = {}
    for idx, request in enumerate(asked):
        scheduler.add(request, lambda r, q, answer, idx=idx: got.update({idx: answer}))
        scheduler.step()
        scheduler.step()
    while not scheduler.is_idle:
        scheduler.step()
    for idx, request in enumerate(asked):
        ((expected,),) = osprey.describe(request.image, request.regions)
        assert got[idx].text == expected.text
        assert got[idx].token_logprobs == pytest.approx(expected.token_logprobs, abs=1e-4)


@pytest.mark.parametrize(
    "device", [pytest.param("cpu", marks=pytest.mark.slow), pytest.param("cuda", marks=pytest.mark.gpu)]
)
def test_bfloat16_answers_as_the_plain_path(device: str) -> None:
    """On scenes, at least 99 % of the demo model's answers are equal; their log-probabilities differ by up to 0.15.

    bfloat16 keeps 8 bits, and sums in a batch have another order than for a single row.
    """
    osprey = Osprey.from_pretrained(NANO, device=device, dtype=torch.bfloat16)
    questions = tuple(Question(text, max_new_tokens=12) for text in (prompts.CATEGORY, prompts.SHORT_DESCRIPTION))
    scenes = [make_scene(seed) for seed in range(40_000_000, 40_000_020)]
    requests = [
        ImageRequest(scene.image, tuple(RegionRequest((thing.mask,), questions) for thing in scene.objects))
        for scene in scenes
    ]
    equal, off = [], []
    for request, rows in zip(requests, osprey.describe_many(requests), strict=True):
        for region, row in zip(request.regions, rows, strict=True):
            for question, answer in zip(region.questions, row, strict=True):
                assert isinstance(answer, Answer)
                text, logprobs = plain_answer(osprey.model, osprey.tokenizer, request.image, region.masks[0], question)
                equal.append(answer.text == text)
                if equal[-1]:
                    off.append(max(abs(a - b) for a, b in zip(answer.token_logprobs, logprobs, strict=True)))
    assert len(equal) >= 100
    assert sum(equal) >= 0.99 * len(equal)
    assert max(off) < 0.15


@pytest.mark.gpu
def test_a_captured_step_gives_what_the_eager_one_gives(
    golden_model: OspreyForCausalLM, golden_tokenizer: OspreyTokenizer, image: Image.Image, masks: list[np.ndarray]
) -> None:
    """In float32 on a GPU, graphs give the answers of the same shapes without graphs."""
    model = build_osprey(golden_model.sizes, device="cuda").eval()
    model.load_state_dict(golden_model.state_dict())
    osprey = Osprey(model, golden_tokenizer, model_version="gpu")
    question = Question(prompts.DETAILED_DESCRIPTION, max_new_tokens=24)
    regions = [RegionRequest((mask,), (question,) * 3) for mask in masks]
    captured = osprey.describe(image, regions)
    parts = dataclasses.replace(osprey._parts, static=lambda: StaticStep(osprey._decoder, capture=False))
    osprey._own_scheduler = Scheduler(parts, Budget())
    eager = osprey.describe(image, regions)
    assert [[answer.text for answer in row] for row in captured] == [[answer.text for answer in row] for row in eager]
