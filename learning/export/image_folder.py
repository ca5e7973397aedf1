"""The images of an export: fetched by the workers' own resolver, written as the picture that the masks lie on.

Neighbours: `worker/images/resolver.py` (fetches, with its guards), `learning/export/splits.py` (near-duplicates).
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from job_queue.contracts import ImageRef
from job_queue.errors import ImageCorrupt, ImageUnavailable
from learning.export.splits import look_of
from learning.export.staging import write_file
from learning.submitted.problems import Problem
from learning.submitted.regions import SubmittedRegion
from worker.images.resolver import ImageResolver, ResolvedImage

FOLDER = "images"


@dataclass(frozen=True, slots=True)
class StagedImage:
    """An image as written; `name` may differ from the asked one in its suffix."""

    name: str
    wh: tuple[int, int]
    sha256: str
    look: int


@dataclass(frozen=True, slots=True)
class Staged:
    """`images` by the name that regions know them by; `problems` says which regions have none, and why."""

    images: Mapping[str, StagedImage]
    problems: tuple[Problem, ...]

    def has(self, region: SubmittedRegion) -> bool:
        """Whether the region's image is there in the size of its mask."""
        image = self.images.get(region.image)
        return image is not None and image.wh == region.image_wh

    def renamed(self, region: SubmittedRegion) -> SubmittedRegion:
        """The region with the name under which its image was written."""
        image = self.images.get(region.image)
        return region if image is None or image.name == region.image else replace(region, image=image.name)


def stage_images(
    refs: Mapping[str, ImageRef],
    regions: Iterable[SubmittedRegion],
    resolver: ImageResolver,
    folder: Path,
    on_image: Callable[[], None] | None = None,
) -> Staged:
    """Write every image that a region is on into `folder`/images.

    An image that is gone, damaged or of another size than its masks makes a problem per region, and no failure.
    """
    by_image: dict[str, list[SubmittedRegion]] = {}
    for region in regions:
        by_image.setdefault(region.image, []).append(region)
    images: dict[str, StagedImage] = {}
    problems: list[Problem] = []
    for name, on_it in sorted(by_image.items()):
        sizes = {region.image_wh for region in on_it}
        image, why = _stage(name, refs.get(name), resolver, sizes, folder)
        if image is not None:
            images[name] = image
        for region in on_it:
            if (reason := why.get(region.image_wh)) is not None:
                sentence = f"{reason}; the region is kept in regions.jsonl, not taught"
                problems.append(Problem(region.task, region.annotation, region.region, sentence, "image"))
        if on_image is not None:
            on_image()
    return Staged(images, tuple(problems))


def _stage(
    name: str, ref: ImageRef | None, resolver: ImageResolver, sizes: set[tuple[int, int]], folder: Path
) -> tuple[StagedImage | None, dict[tuple[int, int], str]]:
    """The written image, and per size of masks why they have none."""
    if ref is None:
        return None, dict.fromkeys(sizes, f"the address of its image {name} is not known")
    found, why = None, {}
    for image_wh in sorted(sizes):
        try:
            found = resolver.resolve(ref, image_wh)
        except (ImageUnavailable, ImageCorrupt) as error:
            why[image_wh] = str(error)
    if found is None:
        return None, why
    try:
        return _write(name, ref, found, resolver, folder), why
    except (ImageUnavailable, ImageCorrupt) as error:  # it was fetched a second time, and went in between
        return None, dict.fromkeys(sizes, str(error))


def _write(name: str, ref: ImageRef, found: ResolvedImage, resolver: ImageResolver, folder: Path) -> StagedImage:
    data = resolver.encoded(ref)
    if not _reads_as(data, found.image):
        # A trainer opens the file as it is: no turning by EXIF, no white behind transparency, no 16 bits.
        buffer = io.BytesIO()
        found.image.save(buffer, "PNG")
        data, name = buffer.getvalue(), f"{PurePosixPath(name).stem}.png"
    write_file(folder / FOLDER / name, data)
    return StagedImage(name, found.image.size, hashlib.sha256(data).hexdigest(), look_of(found.image))


def _reads_as(data: bytes, image: Image.Image) -> bool:
    """Whether Pillow's plain reading of the bytes gives exactly these pixels."""
    try:
        with Image.open(io.BytesIO(data)) as plain:
            return plain.size == image.size and np.array_equal(np.asarray(plain.convert("RGB")), np.asarray(image))
    except (OSError, ValueError):  # the file changed between two fetches: the pixels that were checked are written
        return False
