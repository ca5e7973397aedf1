"""Claims about a scene's pixels and masks."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from demo.scenes import CATALOG, DEMO_SEEDS, EVAL_SEEDS, TRAIN_SEEDS, Scene, make_scene
from demo.scenes.scene import ScenePart

SEEDS = range(5_000, 5_030)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [make_scene(seed) for seed in SEEDS]


def _digest(scene: Scene) -> str:
    digest = hashlib.sha256(scene.image.tobytes() + scene.region_map.tobytes())
    for thing in scene.objects:
        digest.update(
            repr((thing.category, thing.color, thing.material, thing.inner_point_px, thing.relations)).encode()
        )
    return digest.hexdigest()


def test_a_seed_gives_the_same_scene_in_another_process() -> None:
    """Only the seed counts: no hash order, no global random state."""
    program = (
        "import hashlib\nfrom demo.scenes import make_scene\n"
        "s = make_scene(123)\nprint(hashlib.sha256(s.image.tobytes() + s.region_map.tobytes()).hexdigest())"
    )
    child = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "7", "PYTHONPATH": "."},
    )
    np.random.seed(99)
    scene = make_scene(123)
    assert child.stdout.strip() == hashlib.sha256(scene.image.tobytes() + scene.region_map.tobytes()).hexdigest()
    assert _digest(make_scene(124)) == _digest(make_scene(124)) != _digest(scene)


def test_the_seed_ranges_never_meet() -> None:
    assert (len(EVAL_SEEDS), len(DEMO_SEEDS)) == (200, 12)
    assert not set(EVAL_SEEDS) & set(DEMO_SEEDS)
    assert not any(seed in TRAIN_SEEDS for seed in [*EVAL_SEEDS, *DEMO_SEEDS])


def test_masks_are_visible_disjoint_and_nested(scenes: list[Scene]) -> None:
    """Objects do not share pixels; parts lie in their object and do not share pixels; sub-parts lie in parts."""
    for scene in scenes:
        assert 3 <= len(scene.objects) <= 5
        seen = np.zeros(scene.region_map.shape, int)
        for thing in scene.objects:
            seen += thing.mask
            covered = np.zeros(scene.region_map.shape, int)
            for part in thing.parts:
                covered += part.mask
                assert not (part.mask & ~thing.mask).any()
                assert part.mask.sum() >= 250
                for subpart in part.subparts:
                    assert not (subpart.mask & ~part.mask).any()
                    assert part.mask.sum() > subpart.mask.sum() >= 250
            assert covered.max() == 1
        assert seen.max() == 1


def test_inner_points_lie_inside(scenes: list[Scene]) -> None:
    """A part's point is outside its sub-parts, an object's point is in a part, and all are well inside."""
    for scene in scenes:
        for thing in scene.objects:
            x, y = thing.inner_point_px
            assert thing.mask[y, x]
            assert any(part.mask[y, x] for part in thing.parts)
            for part in thing.parts:
                x, y = part.inner_point_px
                assert part.mask[y, x]
                assert not any(subpart.mask[y, x] for subpart in part.subparts)
                assert part.mask[y - 2 : y + 3, x - 2 : x + 3].all()


def test_every_category_appears_with_parts_that_a_nano_model_can_see() -> None:
    """Over many scenes every category shows at least two kinds of parts."""
    parts: dict[str, set[str]] = {category: set() for category in CATALOG}
    for seed in range(80):
        for thing in make_scene(seed, (256, 192)).objects:
            parts[thing.category] |= {part.name for part in thing.parts}
    assert len(parts) >= 12
    assert all(2 <= len(names) <= 6 for names in parts.values()), parts


def test_objects_stay_mostly_visible(scenes: list[Scene]) -> None:
    """No object loses its main part to another one."""
    for scene in scenes:
        for thing in scene.objects:
            main = [part for part in thing.parts if (part.color, part.material) == (thing.color, thing.material)]
            assert main, (scene.seed, thing.category)


@pytest.mark.parametrize("image_wh", [(512, 384), (640, 480), (300, 500), (1024, 600), (96, 96)])
def test_any_picture_size_works(image_wh: tuple[int, int]) -> None:
    scene = make_scene(3, image_wh)
    assert scene.image.size == image_wh
    assert all(thing.mask.shape == image_wh[::-1] and thing.mask.any() for thing in scene.objects)


def test_a_picture_too_small_is_refused() -> None:
    with pytest.raises(ValueError, match="sides >= 96 px"):
        make_scene(0, (64, 300))


def test_names_of_parts_and_subparts_differ(scenes: list[Scene]) -> None:
    """A sub-part never has its part's name, so the two answers cannot be confused."""
    parts: list[ScenePart] = [part for scene in scenes for thing in scene.objects for part in thing.parts]
    assert any(part.subparts for part in parts)
    assert all(part.name != subpart.name for part in parts for subpart in part.subparts)
