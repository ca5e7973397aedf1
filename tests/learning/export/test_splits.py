"""Claims about the split: it is by hash and stable as a project grows, and near-duplicates are on one side."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from demo.scenes.scene import make_scene
from learning.export.splits import Picture, groups_of, look_of, sides_of


def pictures(number: int, start: int = 1) -> list[Picture]:
    """Return pictures that are all different."""
    return [Picture(f"task{idx}.png", idx, f"/upload/{idx}.png") for idx in range(start, start + number)]


def test_share_is_held_out_and_growth_moves_nothing():
    """A tenth of 2000 images is held out; 2000 more change no side."""
    sides = sides_of(pictures(2000), 0.1, 0)
    assert sum(side == "held_out" for side in sides.values()) == pytest.approx(200, abs=45)  # 3.4 sigma
    grown = sides_of(pictures(4000), 0.1, 0)
    assert {name: grown[name] for name in sides} == sides
    assert sides_of(list(reversed(pictures(2000))), 0.1, 0) == sides
    assert sides_of(pictures(2000), 0.1, 1) != sides
    assert set(sides_of(pictures(20), 0.0, 0).values()) == {"train"}


def test_the_same_address_or_bytes_are_one_group():
    """Images with the same address or the same bytes form a group."""
    given = [Picture("a", 5, "/x"), Picture("b", 2, "/x"), Picture("c", 3, "/y", "ab"), Picture("d", 4, "/z", "ab")]
    assert groups_of(given) == [[0, 1], [2, 3]]


def test_near_copies_join_and_groups_are_closed():
    """Pictures 6 bits apart are near, 7 bits apart are not; a chain of near pictures is one group."""
    looks = [0, 0b111111, 0b111111_111111, 2**63 - 1]
    given = [Picture(str(idx), idx, f"/{idx}", str(idx), look) for idx, look in enumerate(looks)]
    assert groups_of(given) == [[0, 1, 2], [3]]
    far = [Picture(str(idx), idx, f"/{idx}", str(idx), look) for idx, look in enumerate((0, 0b1111111))]
    assert groups_of(far) == [[0], [1]]


def test_later_copies_follow_the_first(tmp_path):
    """A later copy is on the side of its original."""
    for idx in range(1, 40):
        original = Picture("a", idx, f"/{idx}", "one", 5)
        alone = sides_of([original], 0.5, 0)["a"]
        assert sides_of([original, Picture("b", 999, "/copy", "two", 5)], 0.5, 0) == {"a": alone, "b": alone}


def altered(image: Image.Image) -> dict[str, Image.Image]:
    """Return copies as they occur in real collections."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=60)
    return {
        "recompressed": Image.open(buffer),
        "half": image.resize((image.width // 2, image.height // 2)),
        "brighter": ImageEnhance.Brightness(image).enhance(1.05),
    }


def test_copies_look_the_same_and_other_scenes_do_not():
    """At least 28 of 30 recompressed, scaled or brighter copies join their original; no other scene does."""
    images = [make_scene(seed).image for seed in range(30)]
    given = [Picture(str(idx), idx, f"/{idx}", str(idx), look_of(image)) for idx, image in enumerate(images)]
    assert len(groups_of(given)) == 30
    for name in altered(images[0]):
        copies = [
            Picture(f"{idx}c", 100 + idx, f"/{idx}c", f"{idx}c", look_of(altered(image)[name]))
            for idx, image in enumerate(images)
        ]
        joined = sum(len(group) == 2 for group in groups_of([*given, *copies]))
        assert joined >= 28, name
        assert all(len(group) <= 2 and group[-1] % 30 == group[0] for group in groups_of([*given, *copies]))


def test_look_of_any_mode():
    """Grey, palette and tiny images have a difference hash, too."""
    for mode in ("L", "P", "RGB"):
        assert 0 <= look_of(Image.fromarray(np.zeros((3, 2), np.uint8)).convert(mode)) < 2**64
