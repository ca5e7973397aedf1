"""`Osprey.describe` gives the answers of the plain path, and keeps every promise of its docstring."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from osprey_model.config import LEVELS
from osprey_model.engine.engine import Osprey
from osprey_model.engine.requests import Answer, PromptTooLong, Question, RegionRequest
from osprey_model.inputs import prompts
from osprey_model.inputs.images import content_key
from osprey_model.inputs.masks import BadMask, EmptyMask
from osprey_model.weights.checkpoint import save_checkpoint
from tests.support.plain_answers import plain_answer

QUESTIONS = (
    Question(prompts.CATEGORY, max_new_tokens=6),
    Question("What part is {region}?", "part", max_new_tokens=9),
    Question(prompts.SHORT_DESCRIPTION, max_new_tokens=12),
    Question(prompts.DETAILED_DESCRIPTION, max_new_tokens=24),
)
CATEGORY = QUESTIONS[0]


def test_one_shared_prefix_batch_equals_one_generate_per_question(
    osprey: Osprey, image: Image.Image, masks: list[np.ndarray]
) -> None:
    """Three regions with four questions in one batch give the tokens of twelve plain calls."""
    answers = osprey.describe(image, [RegionRequest((mask,), QUESTIONS) for mask in masks])
    texts = set()
    for mask, row in zip(masks, answers, strict=True):
        for question, answer in zip(QUESTIONS, row, strict=True):
            text, logprobs = plain_answer(osprey.model, osprey.tokenizer, image, mask, question)
            assert answer.text == text
            assert answer.token_logprobs == pytest.approx(logprobs, abs=1e-4)
            texts.add(text)
    assert len(texts) >= 4, "answers that are all the same would prove nothing"


def test_batch_size_changes_nothing(osprey: Osprey, image: Image.Image, masks: list[np.ndarray]) -> None:
    """Questions decoded together, in pairs or one by one get the same answers."""
    requests = [RegionRequest((mask,), QUESTIONS) for mask in masks]
    together = osprey.describe(image, requests)
    in_twos = Osprey(osprey.model, osprey.tokenizer, model_version="golden", max_batch_rows=2).describe(image, requests)
    for left, right in zip(chain(*together), chain(*in_twos), strict=True):
        assert (left.text, left.values) == (right.text, right.values)
        assert left.confidence == pytest.approx(right.confidence, rel=1e-4)
    assert together == osprey.describe(image, requests)


def test_on_answer_gets_every_answer_once_and_short_ones_first(
    osprey: Osprey, image: Image.Image, masks: list[np.ndarray]
) -> None:
    """The callback gets the returned answers with region and question index, in the order in which rows end."""
    seen: dict[tuple[int, int], Answer] = {}
    answers = osprey.describe(
        image,
        [RegionRequest((mask,), QUESTIONS) for mask in masks],
        on_answer=lambda region, question, answer: seen.update({(region, question): answer}),
    )
    assert seen == {(r, q): answers[r][q] for r in range(3) for q in range(4)}
    order = [len(answer.token_logprobs) for answer in seen.values()]
    assert order == sorted(order)


def test_choices_are_never_left(osprey: Osprey, image: Image.Image, masks: list[np.ndarray]) -> None:
    """A model with random weights answers with a listed choice; its alternatives are the other choices."""
    choices = ("hat", "hat rack", "lamp", "Traffic_light", "old chair")
    question = Question(prompts.CATEGORY, choices=choices)
    for row in osprey.describe(image, [RegionRequest((mask,), (question,)) for mask in masks]):
        (answer,) = row
        assert len(answer.values) == 1
        assert answer.values[0] in choices
        assert 0 < answer.confidence <= 1
        others = [alternative.text for alternative in answer.alternatives]
        assert len(set(others)) == len(others)
        assert set(others) <= set(choices) - set(answer.values)
        total = answer.confidence + sum(alternative.probability for alternative in answer.alternatives)
        assert total == pytest.approx(1.0, abs=1e-4)


def test_multiple_choices_come_once_each(osprey: Osprey, image: Image.Image, masks: list[np.ndarray]) -> None:
    """With `multiple`, the values are listed choices, each at most once."""
    choices = ("red", "blue", "dark green")
    question = Question("What is the color of {region}?", "part", choices=choices, multiple=True)
    for row in osprey.describe(image, [RegionRequest((mask,), (question,)) for mask in masks]):
        values = row[0].values
        assert values
        assert set(values) <= set(choices)
        assert len(set(values)) == len(values)


def test_mask_idx_picks_the_mask(osprey: Osprey, image: Image.Image, masks: list[np.ndarray]) -> None:
    """A question with mask_idx 1 gets the answer that the second mask gets as a region of its own."""
    part, whole = masks[0], masks[1]
    both = RegionRequest((part, whole), (CATEGORY, Question(prompts.CATEGORY, mask_idx=1, max_new_tokens=6)))
    (own, of_whole) = osprey.describe(image, [both])[0]
    (alone,) = osprey.describe(image, [RegionRequest((whole,), (CATEGORY,))])[0]
    assert of_whole.text == alone.text
    assert of_whole.token_logprobs == pytest.approx(alone.token_logprobs, abs=1e-4)
    assert own.token_logprobs != pytest.approx(of_whole.token_logprobs, abs=1e-4)


def test_an_image_is_encoded_once(osprey: Osprey, image: Image.Image, masks: list[np.ndarray]) -> None:
    """After `warm`, two calls run the tower once; a changed pixel makes it run again."""
    calls = []
    handle = osprey.model.model.vision_tower.register_forward_hook(lambda *_: calls.append(1))
    try:
        osprey.warm(image, content_key(image))
        for mask in masks[:2]:
            osprey.describe(image, [RegionRequest((mask,), (CATEGORY,))])
        assert len(calls) == 1
        changed = image.copy()
        changed.putpixel((0, 0), (1, 2, 3))
        osprey.describe(changed, [RegionRequest((masks[0],), (CATEGORY,))])
        assert len(calls) == 2
    finally:
        handle.remove()


@pytest.mark.parametrize("side", [480, 640, 1080, 1920])
@pytest.mark.parametrize(("height", "width"), [(2, 2), (1, None), (None, 2)], ids=["2x2", "row", "two columns"])
def test_regions_between_the_sample_points(
    osprey: Osprey, image: Image.Image, side: int, height: int | None, width: int | None
) -> None:
    """For specks and thin lines a warning names the lost levels; with the finer read no level is lost."""
    finer = Osprey(osprey.model, osprey.tokenizer, model_version="golden", finer_mask_read=True)
    told = set()
    for at in (side // 2 - 1, side // 3, side // 5 + 1):
        mask = np.zeros((side, side), bool)
        rows = slice(None) if height is None else slice(at, at + height)
        columns = slice(None) if width is None else slice(at, at + width)
        mask[rows, columns] = True
        prefix = osprey._prefixes.of(image, None)
        tokens = osprey._reader.read_all(prefix, [mask])[0].tokens
        lost = tuple(level for level, cells in zip(LEVELS, tokens.covered_cells_RL[0], strict=True) if not cells)
        ((answer,),) = osprey.describe(image, [mask], ["What is {region}?"], max_new_tokens=3)
        warned = [warning for warning in answer.warnings if warning.kind != "cut"]
        assert [warning.levels for warning in warned] == ([lost] if lost else [])
        told |= {warning.kind for warning in warned}
        ((seen,),) = finer.describe(image, [mask], ["What is {region}?"], max_new_tokens=3)
        assert [warning for warning in seen.warnings if warning.kind != "cut"] == []
        assert (seen.token_logprobs != answer.token_logprobs) == bool(lost)
        finer_tokens = finer._reader.read_all(prefix, [mask])[0].tokens
        assert bool((finer_tokens.covered_cells_RL > 0).all())
    assert told, "no position was lost at any level: the test would prove nothing"


def test_a_vanished_region_says_so(osprey: Osprey, image: Image.Image) -> None:
    """The warning names the kind, the levels and the remedy."""
    speck = np.zeros((1920, 1920), bool)
    speck[1011:1013, 1011:1013] = True
    ((answer,),) = osprey.describe(image, [speck], [CATEGORY])
    (warning,) = (warning for warning in answer.warnings if warning.kind != "cut")
    assert (warning.kind, warning.levels) == ("vanished", LEVELS)
    assert "finer_mask_read=True" in str(warning)


def test_an_empty_mask_is_an_error(osprey: Osprey, image: Image.Image, masks: list[np.ndarray]) -> None:
    """An empty mask raises an error; it never gets an answer about the surroundings."""
    with pytest.raises(EmptyMask, match=r"region 1, mask 0: .*an empty one of 143x97; draw it again"):
        osprey.describe(image, [masks[0], np.zeros((97, 143), bool)], [CATEGORY])
    with pytest.raises(EmptyMask, match=r"mask 0: "):
        osprey.chat(image, [np.zeros((97, 143), bool)], "What is {region}?")


def test_masks_and_questions_apart(osprey: Osprey, image: Image.Image, masks: list[np.ndarray]) -> None:
    """describe(image, masks, questions) equals the same requests written out; strings are questions too."""
    spelled_out = osprey.describe(image, [RegionRequest((mask,), QUESTIONS[:2]) for mask in masks])
    assert osprey.describe(image, masks, QUESTIONS[:2]) == spelled_out
    assert osprey.describe(image, masks=masks, questions=[CATEGORY.text], max_new_tokens=6) == osprey.describe(
        image, masks, [CATEGORY]
    )
    with pytest.raises(ValueError, match="expected questions beside the masks"):
        osprey.describe(image, masks)
    with pytest.raises(ValueError, match="has its own questions"):
        osprey.describe(image, [RegionRequest((masks[0],), QUESTIONS)], ["What is {region}?"])


def test_images_of_every_kind_give_one_answer(
    osprey: Osprey, image: Image.Image, masks: list[np.ndarray], tmp_path: Path
) -> None:
    """PIL, a path, numpy, torch with channels first, and floats give the same answer for the same pixels."""
    pixels = np.asarray(image)
    image.save(tmp_path / "image.png")
    (expected,) = osprey.describe(image, masks[:1], [CATEGORY])
    for given in (
        tmp_path / "image.png",
        pixels,
        torch.from_numpy(pixels.copy()).permute(2, 0, 1),
        pixels.astype(np.float32) / 255,
    ):
        assert osprey.describe(given, masks[:1], [CATEGORY]) == [expected]


def test_nothing_asked_is_nothing_answered(osprey: Osprey, image: Image.Image) -> None:
    """Without regions or questions the result is empty."""
    assert osprey.describe(image, []) == []
    assert osprey.describe(image, [RegionRequest((), ())]) == [[]]


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (np.zeros((3, 4, 5), bool), r"region 0, mask 0: expected a mask of shape \(H, W\), got \(3, 4, 5\)"),
        (np.full((4, 5), 255), "values from 255 to 255"),
        (np.zeros((0, 5), bool), r"got \(0, 5\)"),
        ({"size": [4, 5]}, "expected a COCO RLE"),
    ],
)
def test_bad_masks_are_named(osprey: Osprey, image: Image.Image, mask: object, said: str) -> None:
    """Wrong rank, values 0..255, no pixels and an incomplete RLE raise an error that describes the input."""
    with pytest.raises(BadMask, match=said):
        osprey.describe(image, [RegionRequest((mask,), (CATEGORY,))])


def test_bad_questions_are_named(osprey: Osprey, image: Image.Image, masks: list[np.ndarray]) -> None:
    """A missing {region}, a special token, a missing mask, an unknown form and a full context raise an error."""
    cases = [
        (Question("What is this?"), "names {region} exactly once"),
        (Question("What is {region}? <mask><pos>"), "may not hold special tokens"),
        (Question("What is {region}?", mask_idx=1), "has 1 masks"),
        (Question("What is {region}?", form="sentence"), "unknown question form"),
    ]
    for question, said in cases:
        with pytest.raises(ValueError, match=said):
            osprey.describe(image, [RegionRequest((masks[0],), (question,))])
    with pytest.raises(PromptTooLong, match="shorten the question"):
        osprey.describe(image, [RegionRequest((masks[0],), (Question("{region}" + " why" * 2000),))])


def test_from_pretrained(osprey: Osprey, image: Image.Image, masks: list[np.ndarray], tmp_path: Path) -> None:
    """A saved folder gives the same answers; its version changes with its weights."""
    save_checkpoint(osprey.model, tmp_path / "model")
    osprey.tokenizer.save_json(tmp_path / "model" / "tokenizer.json")
    loaded = Osprey.from_pretrained(tmp_path / "model")
    requests = [RegionRequest((mask,), QUESTIONS) for mask in masks]
    # Another place in memory may round the last bit otherwise, so numbers are compared approximately.
    for left, right in zip(
        chain(*loaded.describe(image, requests)), chain(*osprey.describe(image, requests)), strict=True
    ):
        assert left.text == right.text
        assert left.token_logprobs == pytest.approx(right.token_logprobs, abs=1e-4)
    assert loaded.model_version.startswith("model@")
    with torch.no_grad():
        loaded.model.lm_head.weight[5, 5] += 1e-3
    save_checkpoint(loaded.model, tmp_path / "model")
    assert Osprey.from_pretrained(tmp_path / "model").model_version != loaded.model_version
