"""Split images into a training and a held-out side by hash, so that an image keeps its side as a project grows.

Images with the same content form a group, which stays on one side: the same address, the same bytes, or nearly the same
picture (a 64-bit difference hash; at most `NEAR_BITS` differ). Groups are closed under "nearly the same". The hash of
the oldest image (lowest task) decides the side of its group, so later copies follow. Only an image that joins two
groups can move one of them to the other side.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from learning.export.categories import draw

Side = Literal["train", "held_out"]
SIDES: tuple[Side, ...] = ("train", "held_out")
# Among 31125 pairs of different demo scenes the closest differ in 12 bits. Of copies at half the size, recompressed
# (JPEG 40) or cropped by 3 %, 95 % differ in at most 2, 3 and 6 bits.
NEAR_BITS = 6
_CELLS = 8


@dataclass(frozen=True, slots=True)
class Picture:
    """What decides whether two images are the same. `sha256` and `look` are None if the image is not available."""

    name: str
    task: int
    url: str
    sha256: str | None = None
    look: int | None = None


def look_of(image: Image.Image) -> int:
    """Return the difference hash, 64 bits: whether each of 8 x 8 grey cells is brighter than its left neighbour."""
    cells = np.asarray(image.convert("L").resize((_CELLS + 1, _CELLS), Image.Resampling.BOX), np.int16)
    bits = np.packbits(cells[:, 1:] > cells[:, :-1])
    return int.from_bytes(bits.tobytes(), "big")


def sides_of(pictures: Sequence[Picture], held_out_share: float, seed: int) -> dict[str, Side]:
    """Return the side of each image by file name.

    Args:
        pictures: all images of the project, in any order.
        held_out_share: expected share of groups that are held out, 0 to 1.
        seed: each seed gives another split.
    """
    ordered = sorted(pictures, key=lambda picture: (picture.task, picture.name))
    sides: dict[str, Side] = {}
    for members in groups_of(ordered):
        oldest = ordered[members[0]]
        key = hashlib.sha256(oldest.url.encode("utf-8", "backslashreplace")).hexdigest()
        side: Side = "held_out" if draw(seed, "side", key) < held_out_share * 2**64 else "train"
        sides.update({ordered[idx].name: side for idx in members})
    return sides


def groups_of(pictures: Sequence[Picture]) -> list[list[int]]:
    """Group images with the same content by union-find.

    Returns:
        The positions of each group, ascending; groups are ordered by their first position.
    """
    parent = list(range(len(pictures)))

    def root(idx: int) -> int:
        while parent[idx] != idx:
            parent[idx] = parent[parent[idx]]
            idx = parent[idx]
        return idx

    def join(first: int, second: int) -> None:
        low, high = sorted((root(first), root(second)))
        parent[high] = low

    seen: dict[tuple[str, str], int] = {}
    for idx, picture in enumerate(pictures):
        for kind, key in (("url", picture.url), ("sha256", picture.sha256)):
            if key is not None:
                join(seen.setdefault((kind, key), idx), idx)
    for first, second in _near(pictures):
        join(first, second)
    groups: dict[int, list[int]] = {}
    for idx in range(len(pictures)):
        groups.setdefault(root(idx), []).append(idx)
    return list(groups.values())


def _near(pictures: Sequence[Picture]) -> list[tuple[int, int]]:
    """Return the pairs of positions whose difference hashes differ in at most `NEAR_BITS` bits."""
    known = [idx for idx, picture in enumerate(pictures) if picture.look is not None]
    looks: NDArray[np.uint64] = np.array([pictures[idx].look for idx in known], np.uint64)
    pairs = []
    for position, idx in enumerate(known):  # row by row: 10 000 images are 10 000 rows of at most 80 kB
        near = np.flatnonzero(np.bitwise_count(looks[position + 1 :] ^ looks[position]) <= NEAR_BITS)
        pairs += [(idx, known[position + 1 + int(offset)]) for offset in near]
    return pairs
