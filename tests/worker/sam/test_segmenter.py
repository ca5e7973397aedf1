"""Claims about prompts on an embedded image: equal to SamPredictor, no duplicates, named errors."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from segment_anything import SamPredictor

from worker.sam.embedding_store import Embedding
from worker.sam.everything import RegionFilter
from worker.sam.presets import SamConfig, build_sam, save_sam
from worker.sam.segmenter import ImageNotEmbedded, ImageTooNarrow, InvalidPrompt, SamSegmenter

TINY = SamConfig(
    "sam-tiny-test", 32, 2, 2, (1,), image_size=64, patch_size=8, window_size=4, prompt_dim=16,
    decoder_heads=2, decoder_mlp_dim=32, iou_head_dim=16,
)  # fmt: skip
WIDTH, HEIGHT = 90, 60
CHECKPOINT = Path(__file__).resolve().parents[3] / "demo" / "checkpoints" / "sam-nano"


@pytest.fixture(scope="module")
def sam():
    torch.manual_seed(3)
    sam = build_sam(TINY)
    for parameter in sam.parameters():  # the zero-initialised ones would hide mistakes
        torch.nn.init.normal_(parameter, std=0.2) if not parameter.any() else None
    return sam


@pytest.fixture(scope="module")
def image():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))


@pytest.fixture
def segmenter(sam, image):
    segmenter = SamSegmenter(sam, "tiny-1")
    segmenter.embed(image, "a")
    return segmenter


@pytest.fixture(scope="module")
def predictor(sam, image):
    predictor = SamPredictor(sam)
    predictor.set_image(np.asarray(image))
    predictor.features = predictor.features.half().float()  # as every worker keeps them
    return predictor


def equal_to_predictor(candidates, masks, ious, logits):
    """Every candidate is one of SamPredictor's masks with its score and logits; areas ascend."""
    areas = [candidate.area_px for candidate in candidates]
    assert areas == sorted(areas)
    assert candidates
    for candidate in candidates:
        # Our resizing sums in another order: a pixel at logit zero may fall on the other side.
        idx = next(i for i in range(len(masks)) if (masks[i] == candidate.mask).mean() > 0.9995)
        np.testing.assert_allclose(candidate.logits, logits[idx], atol=1e-5)
        assert candidate.predicted_iou == pytest.approx(min(max(float(ious[idx]), 0), 1), abs=1e-5)


@pytest.mark.parametrize("point", [(10.0, 20.0), (80.5, 3.25), (0.0, 0.0)])
def test_one_click_is_multimask(segmenter, predictor, point):
    """A single click gives SamPredictor's three masks without empty and duplicate ones."""
    expected = predictor.predict(np.array([point]), np.array([1]), multimask_output=True)
    candidates = segmenter.segment("a", [point], [1])
    equal_to_predictor(candidates, *expected)
    assert len(candidates) <= 3


@pytest.mark.parametrize("with_box", [False, True])
@pytest.mark.parametrize("with_logits", [False, True])
def test_an_unambiguous_prompt_is_the_single_mask(segmenter, predictor, with_box, with_logits):
    """Several points, a box or logits give the one mask of SamPredictor's single-mask output."""
    points, labels = np.array([[20.0, 20.0], [60.0, 40.0]]), np.array([1, 0])
    box = np.array([5.0, 6.0, 70.0, 50.0]) if with_box else None
    logits = np.random.default_rng(1).normal(size=(32, 32)).astype(np.float32) if with_logits else None
    expected = predictor.predict(
        points, labels, box=box, mask_input=None if logits is None else logits[None], multimask_output=False
    )
    candidates = segmenter.segment("a", points.tolist(), labels.tolist(), None if box is None else tuple(box), logits)
    assert len(candidates) == int(expected[0].any())
    if candidates:
        equal_to_predictor(candidates, *expected)


def test_a_box_alone_in_any_corner_order(segmenter):
    """A box dragged upwards is the same box."""
    down, up = segmenter.segment("a", box_px_xyxy=(5, 6, 70, 50)), segmenter.segment("a", box_px_xyxy=(70, 50, 5, 6))
    assert [c.area_px for c in down] == [c.area_px for c in up]


def test_masks_have_the_images_size(segmenter):
    """Masks are bool at full image size, stability and predicted IoU in 0..1."""
    for candidate in segmenter.segment("a", [(WIDTH, HEIGHT)], [1]):  # the far corner is still the image
        assert candidate.mask.shape == (HEIGHT, WIDTH)
        assert candidate.mask.dtype == np.bool_
        assert candidate.mask.any()
        assert 0 <= candidate.stability <= 1
        assert 0 <= candidate.predicted_iou <= 1


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ({"points_px": [(91.0, 5.0)], "labels": [1]}, r"\(91, 5\) is outside the 90x60"),
        ({"points_px": [(float("nan"), 5.0)], "labels": [1]}, "outside"),
        ({"points_px": [(5.0, 5.0)], "labels": []}, "one label per point"),
        ({"points_px": [(5.0, 5.0)], "labels": [2]}, "1 .include. or 0"),
        ({"points_px": [(5.0, 5.0)], "labels": [0]}, "1 negative point"),
        ({}, "no prompt at all"),
        ({"box_px_xyxy": (100.0, 10.0, 120.0, 20.0)}, "covers no pixel"),
        ({"box_px_xyxy": (10.0, 10.0, 10.0, 20.0)}, "covers no pixel"),
        ({"points_px": [(5.0, 5.0)], "labels": [1], "previous_logits": np.zeros((8, 8), np.float32)}, "another model"),
    ],
)
def test_bad_prompts_are_named(segmenter, prompt, message):
    """A prompt that is invalid on this image is InvalidPrompt, with the values that came."""
    with pytest.raises(InvalidPrompt, match=message):
        segmenter.segment("a", **prompt)


def test_an_unknown_image_says_embed_first(segmenter):
    """The error for an image that was never embedded names the missing call."""
    with pytest.raises(ImageNotEmbedded, match=r"embed\(image, key\) first"):
        segmenter.segment("b", [(1, 1)], [1])


def test_a_vanishing_image_is_refused(segmenter):
    """A 1x5000 image, which has no row left at SAM's input size, is refused."""
    with pytest.raises(ImageTooNarrow, match="5000x1 px is too narrow"):
        segmenter.embed(Image.new("RGB", (5000, 1)), "narrow")


@pytest.mark.parametrize("order", [[1, 0], [0, 1]])
def test_of_two_points_on_one_pixel_the_later_counts(segmenter, order):
    """After click and Alt+click on one spot nothing is included; after Alt+click and click it is a click."""
    found = segmenter.segment("a", [(30.2, 20.1), (30.7, 20.9)], order)
    alone = segmenter.segment("a", [(30.7, 20.9)], [1])
    assert [one.rle for one in found] == ([] if order == [1, 0] else [one.rle for one in alone])


def test_sam_finding_nothing_is_an_empty_answer(sam, image):
    """With all logits below the threshold there is no mask, by click, by box and in everything mode."""
    segmenter = SamSegmenter(sam, "tiny-1")
    segmenter.embed(image, "a")
    threshold, sam.mask_threshold = sam.mask_threshold, 1e9
    try:
        assert segmenter.segment("a", [(5, 5)], [1]) == []
        assert segmenter.segment("a", box_px_xyxy=(1, 1, 50, 50)) == []
        assert segmenter.everything("a", points_per_side=4, keep=RegionFilter(0, 0)) == []
    finally:
        sam.mask_threshold = threshold


@pytest.mark.parametrize("image_wh", [(1, 1), (2, 1), (3, 90)])
def test_tiny_images_are_segmented(segmenter, image_wh):
    """Images down to one pixel have a mask of the image's size."""
    segmenter.embed(Image.new("RGB", image_wh), "small")
    for candidate in segmenter.segment("small", [(0, 0)], [1]):
        assert candidate.mask.shape == image_wh[::-1]
    segmenter.everything("small", points_per_side=2, keep=RegionFilter(0, 0, min_area_px=0))


def test_a_108_megapixel_image_costs_no_full_size_masks(segmenter):
    """A click and everything on 12000x9000 px use 64 MB at most; one bool mask alone would have 108 MB."""
    segmenter.embed(Image.new("RGB", (12000, 9000), "teal"), "huge")
    clicked = segmenter.segment("huge", [(6000, 4500)], [1])
    tracemalloc.start()
    found = segmenter.everything("huge", points_per_side=4, keep=RegionFilter(0, 0, max_area_unit=1))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert clicked
    assert found
    assert all(one.rle["size"] == [9000, 12000] for one in (*clicked, *found))
    assert peak_bytes < 64 * 1024**2


def test_an_adopted_embedding_gives_the_same_masks(sam, image, segmenter):
    """A worker that adopts an embedding gives the same masks and logits, bit by bit."""
    other = SamSegmenter(sam, "tiny-1")
    other.adopt("a", segmenter.embedding("a"))
    mine, theirs = (one.segment("a", [(30, 20)], [1]) for one in (segmenter, other))
    assert [one.rle for one in mine] == [one.rle for one in theirs]
    assert all((a.logits == b.logits).all() for a, b in zip(mine, theirs, strict=True))


def test_another_models_embedding_is_refused(segmenter):
    """An embedding of other sizes is refused with both sizes."""
    with pytest.raises(ValueError, match="expected an embedding of arrays"):
        segmenter.adopt("b", Embedding({"features": np.zeros((1, 2, 3), np.float16)}, (4, 4)))


def test_the_cache_is_bounded_and_drops_the_oldest(sam, image):
    """With memory for two embeddings, the third one removes the one used longest ago."""
    segmenter = SamSegmenter(sam, "tiny-1", cache_bytes=2 * 16 * 8 * 8 * 2)
    for key in ("a", "b"):
        segmenter.embed(image, key)
    segmenter.segment("a", [(1, 1)], [1])
    segmenter.embed(image, "c")
    assert [segmenter.is_embedded(key) for key in ("a", "b", "c")] == [True, False, True]


def test_an_embedded_image_is_not_encoded_again(sam, image):
    """A key is encoded once; another image object with the same key is not read."""
    segmenter, calls = SamSegmenter(sam, "tiny-1"), []
    hook = sam.image_encoder.register_forward_hook(lambda *_: calls.append(1))
    segmenter.embed(image, "a")
    segmenter.embed(image, "a")
    hook.remove()
    assert len(calls) == 1


def test_a_bfloat16_encoder_gives_nearly_the_same_masks(sam, image):
    """Half precision in the encoder changes only a mask's border; the decoder computes in float32."""
    full, half = SamSegmenter(sam, "tiny-1"), SamSegmenter(sam, "tiny-1", encoder_dtype=torch.bfloat16)
    points, labels = [(20.0, 20.0), (60.0, 40.0)], [1, 0]
    for segmenter in (full, half):
        segmenter.embed(image, "a")
    (expected,), (found,) = full.segment("a", points, labels), half.segment("a", points, labels)
    assert found.logits.dtype == np.float32
    assert (expected.logits != found.logits).any()
    assert (expected.mask == found.mask).mean() > 0.97


def test_load_names_the_version(sam, tmp_path):
    """SamSegmenter.load reads a folder and has its model version."""
    save_sam(sam, TINY, tmp_path / "sam")
    assert SamSegmenter.load(tmp_path / "sam").model_version.startswith("sam-tiny-test-")


@pytest.mark.gpu
def test_the_gpu_finds_what_the_cpu_finds():
    """sam-nano in the GPU's own types: the same regions of a scene, up to their borders."""
    from demo.scenes import make_scene

    scene = make_scene(999_900)
    found = []
    for device in ("cpu", "cuda"):
        segmenter = SamSegmenter.load(CHECKPOINT, device)
        segmenter.embed(scene.image, "a")
        point = scene.objects[0].inner_point_px
        found.append((segmenter.segment("a", [point], [1])[-1].mask, segmenter.everything("a", points_per_side=16)))
    (cpu_mask, cpu_regions), (gpu_mask, gpu_regions) = found
    assert (cpu_mask & gpu_mask).sum() / (cpu_mask | gpu_mask).sum() > 0.97
    assert abs(len(cpu_regions) - len(gpu_regions)) <= 2


@pytest.mark.slow
def test_a_compiled_encoder_gives_the_same_masks(sam, image):
    """torch.compile changes the speed, not the answer."""
    plain, compiled = SamSegmenter(sam, "tiny-1"), SamSegmenter(sam, "tiny-1", compile_encoder=True)
    for segmenter in (plain, compiled):
        segmenter.embed(image, "a")
    (expected, *_), (found, *_) = (one.segment("a", [(30, 20)], [1]) for one in (plain, compiled))
    assert (expected.mask == found.mask).mean() > 0.999
