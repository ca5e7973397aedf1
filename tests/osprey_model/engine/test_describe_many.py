"""`Osprey.describe_many`: one batch gives the answers of one call per image, and bad input fails alone."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from osprey_model.engine.engine import Osprey
from osprey_model.engine.requests import Answer, Failure, ImageRequest, Question, RegionRequest
from osprey_model.inputs import prompts

SHORT = Question(prompts.CATEGORY, max_new_tokens=5)
LONG = Question(prompts.DETAILED_DESCRIPTION, max_new_tokens=18)
CLOSED = Question(prompts.CATEGORY, choices=("hat", "hat rack", "Katze", "猫"))


@pytest.fixture
def images(image: Image.Image) -> list[Image.Image]:
    """Three images with different contents."""
    return [image, image.rotate(90), image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]


def requests_on(images: list[Image.Image], masks: list[np.ndarray]) -> list[ImageRequest]:
    """Create requests in which image i has i + 1 regions, each image with other questions."""
    questions = [(SHORT, LONG), (CLOSED, LONG), (LONG, CLOSED, SHORT)]
    return [
        ImageRequest(image, tuple(RegionRequest((mask,), questions[idx]) for mask in masks[: idx + 1]))
        for idx, image in enumerate(images)
    ]


def assert_same(left: list[list[Answer | Failure]], right: list[list[Answer]]) -> None:
    """Check that texts and values are equal, and numbers up to rounding."""
    assert [len(row) for row in left] == [len(row) for row in right]
    for one, other in zip([a for row in left for a in row], [a for row in right for a in row], strict=True):
        assert isinstance(one, Answer)
        assert (one.text, one.values) == (other.text, other.values)
        assert one.token_logprobs == pytest.approx(other.token_logprobs, abs=1e-4)
        assert one.confidence == pytest.approx(other.confidence, rel=1e-3)


def test_several_images_in_one_batch_equal_one_call_each(
    osprey: Osprey, images: list[Image.Image], masks: list[np.ndarray]
) -> None:
    """One batch gives the answers of one call per image; the callback gets each answer once, with its indices."""
    requests = requests_on(images, masks)
    seen: dict[tuple[int, int, int], Answer] = {}
    together = osprey.describe_many(requests, lambda i, r, q, answer: seen.update({(i, r, q): answer}))
    assert seen == {
        (i, r, q): answer
        for i, rows in enumerate(together)
        for r, row in enumerate(rows)
        for q, answer in enumerate(row)
    }
    fresh = Osprey(osprey.model, osprey.tokenizer, model_version="golden")
    for request, rows in zip(requests, together, strict=True):
        assert_same(rows, fresh.describe(request.image, request.regions))


def test_towers_of_several_images_run_as_one_batch(
    osprey: Osprey, images: list[Image.Image], masks: list[np.ndarray]
) -> None:
    """Three images take one pass of the tower; an image that occurs twice is encoded once; all are cached."""
    batches = []
    handle = osprey.model.model.vision_tower.register_forward_hook(lambda _m, args, _o: batches.append(len(args[0])))
    try:
        osprey.describe_many(requests_on(images, masks) + requests_on(images[:1], masks))
    finally:
        handle.remove()
    assert batches == [3]
    stats = osprey.cache_stats()
    assert (stats.misses, stats.entries, stats.evictions) == (3, 3, 0)
    osprey.describe_many(requests_on(images, masks))
    assert osprey.cache_stats().hits == 3


@pytest.mark.parametrize(
    ("bad", "kind", "said"),
    [
        (RegionRequest((np.full((4, 5), 255),), (SHORT,)), "BadMask", "region 1, mask 0: expected a mask of 0 and 1"),
        (RegionRequest((None,), (SHORT,)), "BadMask", "got NoneType"),
        (RegionRequest((np.zeros((4, 5), bool),), (SHORT,)), "EmptyMask", "region 1, mask 0: .*at least one pixel"),
        (RegionRequest((np.zeros((0, 4), bool),), (SHORT,)), "BadMask", r"\(0, 4\)"),
        (RegionRequest((), (SHORT,)), "BadQuestion", "region 1 has 0 masks"),
        (RegionRequest((np.ones((4, 5), bool),), (Question("What is this?"),)), "BadQuestion", "exactly once"),
        (
            RegionRequest((np.ones((4, 5), bool),), (Question(prompts.CATEGORY, choices=("a", " ")),)),
            "BadChoices",
            "empty",
        ),
        (
            RegionRequest((np.ones((4, 5), bool),), (Question(prompts.CATEGORY, choices="boat"),)),  # type: ignore[arg-type]
            "BadChoices",
            r"write \('boat',\)",
        ),
        (
            RegionRequest((np.ones((4, 5), bool),), (Question(prompts.CATEGORY, choices=(1, 2)),)),  # type: ignore[arg-type]
            "BadChoices",
            "got 1",
        ),
        (RegionRequest((np.ones((4, 5), bool),), (Question("\ud800 {region}"),)), "BadQuestion", "valid Unicode"),
        (RegionRequest((np.ones((4, 5), bool),), (Question(3),)), "BadQuestion", "got int 3"),  # type: ignore[arg-type]
        (RegionRequest(({"size": [9**9, 9**9], "counts": [9**18]},), (SHORT,)), "BadMask", "cannot be decoded"),
        (
            RegionRequest((np.ones((4, 5), bool),), (Question("{region}" + " why" * 2000),)),
            "PromptTooLong",
            "shorten the question",
        ),
    ],
)
def test_a_bad_region_fails_alone(
    bad: RegionRequest, kind: str, said: str, osprey: Osprey, image: Image.Image, masks: list[np.ndarray]
) -> None:
    """The regions before and behind a bad one get the answers that they get without it."""
    good = [RegionRequest((mask,), (SHORT, CLOSED)) for mask in masks[:2]]
    ((first, failed, last),) = osprey.describe_many([ImageRequest(image, (good[0], bad, good[1]))])
    (failure,) = failed
    assert isinstance(failure, Failure)
    assert failure.kind == kind
    with pytest.raises(ValueError, match=said):
        raise failure.error
    assert_same([first, last], osprey.describe(image, good))


def test_a_bad_question_leaves_its_region_unharmed(osprey: Osprey, image: Image.Image, masks: list[np.ndarray]) -> None:
    """Only the bad question of a region fails."""
    region = RegionRequest((masks[0],), (SHORT, Question("What is {region}?", mask_idx=3), CLOSED))
    (((one, failure, other),),) = osprey.describe_many([ImageRequest(image, (region,))])
    assert isinstance(one, Answer)
    assert isinstance(other, Answer)
    assert isinstance(failure, Failure)
    assert failure.kind == "BadQuestion"


def test_a_bad_image_fails_alone(osprey: Osprey, image: Image.Image, masks: list[np.ndarray], tmp_path) -> None:
    """A truncated file, no image, a missing file and an extreme aspect ratio fail; the good image is answered."""
    image.save(tmp_path / "whole.png")
    (tmp_path / "half.png").write_bytes((tmp_path / "whole.png").read_bytes()[:-2000])
    regions = tuple(RegionRequest((mask,), (SHORT, CLOSED)) for mask in masks)
    with Image.open(tmp_path / "half.png") as half:
        images = [half, None, tmp_path / "none.png", Image.new("RGB", (2, 2000)), image]
        results = osprey.describe_many([ImageRequest(one, regions) for one in images])
    for rows, kind in zip(results, ("BadImage", "BadImage", "FileNotFoundError", "BadImage"), strict=False):
        assert [[answer.kind for answer in row if isinstance(answer, Failure)] for row in rows] == [[kind] * 2] * 3
    assert_same(results[4], osprey.describe(image, regions))


def test_images_of_any_size(osprey: Osprey, masks: list[np.ndarray]) -> None:
    """Images of 1 x 1 and 12000 x 9000 pixels are answered in one call; without regions the result is empty."""
    regions = (RegionRequest((masks[0],), (SHORT,)), RegionRequest((np.ones((1, 1), bool),), (SHORT,)))
    sizes = [(1, 1), (12_000, 9_000)]
    requests = [ImageRequest(Image.new("RGB", size, "teal"), regions, str(size)) for size in sizes]
    small, large, nothing = osprey.describe_many([*requests, ImageRequest(Image.new("RGB", (5, 5)), ())])
    assert nothing == []
    for rows in (small, large):
        assert all(isinstance(answer, Answer) for row in rows for answer in row)


def test_an_error_of_the_caller_leaves_the_engine_usable(
    osprey: Osprey, image: Image.Image, masks: list[np.ndarray]
) -> None:
    """A callback that raises ends its own call only; the next call answers as a new engine does."""

    def refuse(*_: object) -> None:
        raise KeyError("enough")

    regions = [RegionRequest((mask,), (SHORT, LONG)) for mask in masks]
    with pytest.raises(KeyError, match="enough"):
        osprey.describe(image, regions, on_answer=refuse)
    (answers,) = osprey.describe_many([ImageRequest(image, tuple(regions))])
    fresh = Osprey(osprey.model, osprey.tokenizer, model_version="golden")
    assert_same(answers, fresh.describe(image, regions))
