"""Write the images of an export with the same pixels as their masks; the workers' image resolver reads them."""

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
from learning.submitted.problems import Problem
from learning.submitted.regions import SubmittedRegion
from registry.atomic_writes import Disk
from worker.images.resolver import ImageResolver, ResolvedImage

FOLDER = "images"


@dataclass(frozen=True, slots=True)
class StagedImage:
    """An image as it was written; the suffix of `name` may differ from the requested one."""

    name: str
    wh: tuple[int, int]
    sha256: str
    look: int


@dataclass(frozen=True, slots=True)
class Staged:
    """The written images by the file name in the regions, and a problem for each region without an image."""

    images: Mapping[str, StagedImage]
    problems: tuple[Problem, ...]

    def has(self, region: SubmittedRegion) -> bool:
        """Return whether the region's image was written and has the size of its mask."""
        image = self.images.get(region.image)
        return image is not None and image.wh == region.image_wh

    def renamed(self, region: SubmittedRegion) -> SubmittedRegion:
        """Return the region with the file name under which its image was written."""
        image = self.images.get(region.image)
        return region if image is None or image.name == region.image else replace(region, image=image.name)


def stage_images(
    refs: Mapping[str, ImageRef],
    regions: Iterable[SubmittedRegion],
    resolver: ImageResolver,
    folder: Path,
    on_image: Callable[[], None] | None = None,
) -> Staged:
    """Write the image of every region into `folder`/images.

    If an image is missing, damaged or differs in size from its masks, each of its regions gets a problem; this raises
    no error.
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
                sentence = f"{reason}; the region is kept in regions.jsonl, but not trained on"
                problems.append(Problem(region.task, region.annotation, region.region, sentence, "image"))
        if on_image is not None:
            on_image()
    return Staged(images, tuple(problems))


def _stage(
    name: str, ref: ImageRef | None, resolver: ImageResolver, sizes: set[tuple[int, int]], folder: Path
) -> tuple[StagedImage | None, dict[tuple[int, int], str]]:
    """Write one image; return it, and for each size of masks that it does not fit the reason."""
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
    except (ImageUnavailable, ImageCorrupt) as error:  # the image is read twice, and may disappear in between
        return None, dict.fromkeys(sizes, str(error))


def _write(name: str, ref: ImageRef, found: ResolvedImage, resolver: ImageResolver, folder: Path) -> StagedImage:
    data = resolver.encoded(ref)
    if not _reads_as(data, found.image):
        # A trainer opens the file as it is, without EXIF rotation, white background or conversion from 16 bits.
        buffer = io.BytesIO()
        found.image.save(buffer, "PNG")
        data, name = buffer.getvalue(), f"{PurePosixPath(name).stem}.png"
    Disk().write_new(folder / FOLDER / name, data)
    return StagedImage(name, found.image.size, hashlib.sha256(data).hexdigest(), look_of(found.image))


def _reads_as(data: bytes, image: Image.Image) -> bool:
    """Return whether opening the bytes with Pillow, without further handling, gives exactly these pixels."""
    try:
        with Image.open(io.BytesIO(data)) as plain:
            return plain.size == image.size and np.array_equal(np.asarray(plain.convert("RGB")), np.asarray(image))
    except (OSError, ValueError):  # the file changed between two reads: write the pixels that were checked
        return False
