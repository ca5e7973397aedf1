"""The scheduler: every answer is that of the plain path, whatever else runs; priorities, budgets, cancelling."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image

from osprey_model.engine.decoding.rows import Row
from osprey_model.engine.decoding.static_step import StaticStep
from osprey_model.engine.engine import Osprey
from osprey_model.engine.requests import Answer, Failure, ImageRequest, Question, RegionRequest
from osprey_model.engine.running_batch import Budget, RunningBatch
from osprey_model.engine.scheduler import Scheduler
from osprey_model.inputs import prompts
from osprey_model.inputs.tokenizer import OspreyTokenizer
from osprey_model.modeling.osprey import OspreyForCausalLM
from tests.support.plain_answers import plain_answer

WORDS = ("hat", "hat rack", "lamp", "old chair", "猫", "red", "dark red", "blue")
SHORT = Question(prompts.CATEGORY, max_new_tokens=4)
LONG = Question(prompts.DETAILED_DESCRIPTION, max_new_tokens=20)


def random_question(rng: random.Random) -> Question:
    """Create a question of random form and length, free or with choices."""
    text, form = rng.choice([(prompts.CATEGORY, "region"), ("What is {region}?", "region"), ("Name {region}", "part")])
    if rng.random() < 0.5:
        return Question(text, form, max_new_tokens=rng.randint(1, 9))
    choices = tuple(rng.choices(WORDS, k=rng.randint(1, 7)))  # with repetitions
    return Question(text, form, choices=choices, multiple=rng.random() < 0.5, max_new_tokens=6)


def random_requests(rng: random.Random, pictures: list[Image.Image]) -> list[ImageRequest]:
    """Create requests on one to four images, some of them twice, with zero to four regions each."""
    requests = []
    for _ in range(rng.randint(1, 4)):
        regions = []
        for _ in range(rng.randint(0, 4)):
            mask = np.zeros((rng.randint(20, 60), rng.randint(20, 60)), bool)
            mask[rng.randint(0, 9) :, rng.randint(0, 9) : rng.randint(12, 20)] = True
            regions.append(RegionRequest((mask,), tuple(random_question(rng) for _ in range(rng.randint(1, 4)))))
        requests.append(ImageRequest(rng.choice(pictures), tuple(regions)))
    return requests


@pytest.mark.parametrize("static", [False, True], ids=["plain step", "static step"])
@pytest.mark.parametrize("seed", range(6))
def test_every_answer_is_the_plain_paths(
    seed: int, static: bool, golden_model: OspreyForCausalLM, golden_tokenizer: OspreyTokenizer, image: Image.Image
) -> None:
    """Random images, questions, arrival times, budgets and cache sizes: every answer is that of the plain path."""
    rng = random.Random(seed)
    pictures = [image, image.rotate(90), image.rotate(180)]
    requests = random_requests(rng, pictures)
    osprey = Osprey(
        golden_model, golden_tokenizer, model_version="golden", cache_bytes=rng.choice([0, 1 << 20, 1 << 30])
    )
    budget = Budget(
        rows=rng.choice([1, 2, 3, 7, 64]),
        positions=rng.choice([1, 150, 400, 8192]),
        prefill_positions=rng.choice([1, 60, 2048]),
        images=rng.choice([1, 2, 8]),
    )
    parts = dataclasses.replace(
        osprey._parts, static=lambda: StaticStep(osprey._decoder, capture=False) if static else None
    )
    scheduler = Scheduler(parts, budget)
    results: dict[tuple[int, int, int], Answer | Failure] = {}
    for idx, request in enumerate(requests):
        scheduler.add(request, lambda r, q, answer, idx=idx: results.update({(idx, r, q): answer}))
        for _ in range(rng.randint(0, 3)):  # later requests come while earlier ones are being answered
            scheduler.step()
    while not scheduler.is_idle:
        scheduler.step()
        assert scheduler.num_rows <= budget.rows
    for i, request in enumerate(requests):
        for r, region in enumerate(request.regions):
            for q, question in enumerate(region.questions):
                answer = results.pop((i, r, q))
                assert isinstance(answer, Answer)
                text, logprobs = plain_answer(golden_model, golden_tokenizer, request.image, region.masks[0], question)
                assert answer.text == text
                assert answer.token_logprobs == pytest.approx(logprobs, abs=1e-4)
    assert results == {}


def test_slots_stay_within_the_budget(osprey: Osprey, image: Image.Image, masks: list[np.ndarray]) -> None:
    """Sixty and four hundred regions need the same memory of keys and values."""
    used = []
    for num_regions in (60, 400):
        scheduler = Scheduler(osprey._parts, Budget(rows=16, positions=1024))
        regions = tuple(RegionRequest((masks[idx % 3],), (SHORT,)) for idx in range(num_regions))
        answered = []
        scheduler.add(ImageRequest(image, regions), lambda r, q, answer, answered=answered: answered.append(answer))
        while not scheduler.is_idle:
            scheduler.step()
            assert len(scheduler._batches[0].rows) <= 16
        assert len(answered) == num_regions
        used.append(scheduler._batches[0].kv.num_bytes)
    shape = osprey._decoder.kv_shape
    per_position = 2 * shape.num_layers * shape.num_kv_heads * shape.head_dim * 4
    assert used[0] == used[1] <= 1024 * per_position


def test_masks_are_read_when_their_turn_comes_and_forgotten(osprey: Osprey, image: Image.Image) -> None:
    """Of a thousand regions, only the tokens of one batch are held at a time."""
    scheduler = Scheduler(osprey._parts, Budget(rows=8))
    regions = tuple(RegionRequest((np.ones((9, 9), bool),), (SHORT, LONG)) for _ in range(1000))
    job = scheduler.add(ImageRequest(image, regions), lambda *_: None)
    for _ in range(60):
        scheduler.step()
        assert len(job.encoded) <= 8
    scheduler.cancel(job)
    assert scheduler.is_idle


def test_a_click_is_answered_before_the_bulk_goes_on(
    osprey: Osprey, image: Image.Image, masks: list[np.ndarray]
) -> None:
    """A click is answered from the next token on, and the bulk's answers do not change."""
    bulk = ImageRequest(image, tuple(RegionRequest((mask,), (LONG,) * 4) for mask in masks))
    click = ImageRequest(image.rotate(90), (RegionRequest((masks[0],), (SHORT, LONG)),))
    scheduler, log = osprey.scheduler(), []

    def hand_over(who: str) -> Callable[..., None]:
        return lambda r, q, answer: log.append((who, r, q, answer))

    scheduler.add(bulk, hand_over("bulk"), priority=1)
    for _ in range(5):
        scheduler.step()
    assert (scheduler.num_rows, log) == (12, [])
    scheduler.add(click, hand_over("click"), priority=0)
    steps = 0
    while sum(who == "click" for who, *_ in log) < 2:
        scheduler.step()
        steps += 1
    assert steps <= LONG.max_new_tokens + 1
    assert {who for who, *_ in log} == {"click"}
    while not scheduler.is_idle:
        scheduler.step()
    fresh = Osprey(osprey.model, osprey.tokenizer, model_version="golden")
    for who, request in (("bulk", bulk), ("click", click)):
        expected = fresh.describe(request.image, request.regions)
        for r, q, answer in [entry[1:] for entry in log if entry[0] == who]:
            assert answer.text == expected[r][q].text


def test_a_thousand_choices_cost_no_pass_more_than_two(
    osprey: Osprey, image: Image.Image, masks: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number of passes is the answer's number of tokens, however long the list is."""
    passes = []
    run_layers = osprey._decoder._run_layers

    def counted(embeds: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
        passes.append(len(embeds))
        return run_layers(embeds, *args, **kwargs)

    monkeypatch.setattr(osprey._decoder, "_run_layers", counted)
    letters = "abcdefghij"
    thousand = tuple(f"{a}{b}{c}" for a in letters for b in letters for c in letters)
    osprey.warm(image, "warm")
    for choices in (thousand[:2], thousand, (*thousand, *thousand)):
        passes.clear()
        question = Question(prompts.CATEGORY, choices=choices, num_alternatives=2000)
        ((answer,),) = osprey.describe(image, [RegionRequest((masks[0],), (question,))], image_key="warm")
        assert len(passes) == len(answer.token_logprobs)
        assert answer.values[0] in choices
        total = answer.confidence + sum(other.probability for other in answer.alternatives)
        assert total == pytest.approx(1.0, abs=1e-3)


def test_a_cancelled_request_does_not_run(osprey: Osprey, image: Image.Image, masks: list[np.ndarray]) -> None:
    """A cancelled request neither runs on nor delivers results; the others do."""
    scheduler, log = osprey.scheduler(), []
    requests = [ImageRequest(image, tuple(RegionRequest((mask,), (LONG,)) for mask in masks)) for _ in range(2)]
    first = scheduler.add(requests[0], lambda *result: log.append("first"))
    scheduler.add(requests[1], lambda *result: log.append("second"))
    scheduler.step()
    assert scheduler.num_rows == 6
    scheduler.cancel(first)
    assert scheduler.num_rows == 3
    while not scheduler.is_idle:
        scheduler.step()
    assert log == ["second"] * 3


def test_rows_that_end_make_room(osprey: Osprey, image: Image.Image, masks: list[np.ndarray]) -> None:
    """A waiting question is admitted when enough slots are free, not when the whole batch has ended."""
    scheduler = Scheduler(osprey._parts, Budget(rows=4))
    questions = (SHORT, LONG, SHORT, LONG, SHORT, SHORT)
    done = []
    scheduler.add(ImageRequest(image, (RegionRequest((masks[0],), questions),)), lambda r, q, _: done.append(q))
    while not scheduler.is_idle:
        scheduler.step()
    assert sorted(done) == [0, 1, 2, 3, 4, 5]
    assert set(done[:4]) == {0, 2, 4, 5}, "the last two short ones ran beside the long ones"


@torch.inference_mode()
def test_an_ended_rows_slot_is_taken_by_the_last(osprey: Osprey) -> None:
    """After rows have ended, the others lie in slots 0..n-1, with their keys and values."""
    batch = RunningBatch(osprey._decoder, osprey.tokenizer.eos_token_id, Budget())
    batch.kv.reserve(4, 16, num_used=0)
    rows = [Row(None, num_prompt=3, max_new_tokens=2, length=3) for _ in range(4)]
    for slot, row in enumerate(rows):
        batch.kv.keys[:, slot] = float(slot)
        batch.rows.append(row)
    batch.cancel([rows[0], rows[3]])
    assert len(batch.rows) == 2
    at = [batch.rows.index(row) for row in (rows[1], rows[2])]
    assert [float(batch.kv.keys[0, slot, 0, 0, 0]) for slot in at] == [1.0, 2.0]
