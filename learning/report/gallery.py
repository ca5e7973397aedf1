"""Draw the worst mistakes as small pictures for an HTML page: the surroundings of a region with its mask."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from job_queue.errors import ImageCorrupt, ImageUnavailable
from job_queue.mask_codec import decode_mask
from learning.report.figures import Mistake, SeenRegion

OpenImage = Callable[[SeenRegion], Image.Image]

_SIDE_PX = 320
_MARGIN = 0.6  # around the region, as a share of its larger side
_TINT, _EDGE = np.array([255, 64, 129], np.float32), np.array([255, 255, 255], np.float32)


def pictures_of(
    mistakes: Iterable[Mistake], seen: Sequence[SeenRegion], open_image: OpenImage
) -> dict[tuple[int, str], str]:
    """Return by annotation and region the picture as a `data:` URL, or the reason why there is none."""
    by_id = {(each.region.annotation, each.region.region): each for each in seen}
    pictures = {}
    for mistake in mistakes:
        key = (mistake.annotation, mistake.region)
        try:
            pictures[key] = _as_data_url(draw_region(by_id[key], open_image(by_id[key])))
        except (ImageUnavailable, ImageCorrupt) as error:
            pictures[key] = str(error)
    return pictures


def draw_region(seen: SeenRegion, image: Image.Image) -> Image.Image:
    """Draw a square part of the image around the region, with the mask tinted and outlined.

    Raises:
        ImageCorrupt: image and mask differ in size.
    """
    mask = decode_mask(seen.region.mask)
    if image.size != (mask.shape[1], mask.shape[0]):
        raise ImageCorrupt(
            f"the image is {image.width}x{image.height} pixels, the mask {mask.shape[1]}x{mask.shape[0]}; the image "
            "was replaced"
        )
    left, top, width, height = seen.region.bbox
    side = max(width, height) * (1 + 2 * _MARGIN)
    middle_x, middle_y = left + width / 2, top + height / 2
    box = (
        max(0, int(middle_x - side / 2)),
        max(0, int(middle_y - side / 2)),
        min(image.width, int(np.ceil(middle_x + side / 2))),
        min(image.height, int(np.ceil(middle_y + side / 2))),
    )
    scale = min(_SIDE_PX / (box[2] - box[0]), _SIDE_PX / (box[3] - box[1]))
    size = max(1, round((box[2] - box[0]) * scale)), max(1, round((box[3] - box[1]) * scale))
    pixels = np.asarray(image.convert("RGB").crop(box).resize(size, Image.Resampling.LANCZOS), np.float32)
    cut = Image.fromarray(mask[box[1] : box[3], box[0] : box[2]].astype(np.uint8) * 255)
    inside = np.asarray(cut.resize(size, Image.Resampling.BILINEAR)) > 127
    drawn = np.where(inside[..., None], 0.65 * pixels + 0.35 * _TINT, pixels)
    drawn[_rim(inside, 2)] = _EDGE
    drawn[_rim(inside, 1)] = _TINT
    return Image.fromarray(drawn.astype(np.uint8))


def _rim(inside: NDArray[np.bool_], distance: int) -> NDArray[np.bool_]:
    """Return the pixels outside the mask within `distance` of it."""
    grown = inside
    for _ in range(distance):
        padded = np.pad(grown, 1)
        grown = grown | padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]
    rim: NDArray[np.bool_] = grown & ~inside
    return rim


def _as_data_url(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
