"""Draw pictures for the data card: a few regions on their images, with the field values below."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from job_queue.mask_codec import decode_mask
from learning.export.categories import category_of, draw
from learning.export.counts import Content
from learning.submitted.regions import SubmittedRegion

NUM_SAMPLES = 6
_WIDTH_PX = 360
_MAX_HEIGHT_PX = 540
_LINE_PX, _MARGIN_PX = 15, 6
_MAX_LINE_CHARS = 54
_COLOR = np.array([230, 40, 90], np.float32)


def chosen_samples(content: Content, seed: int) -> list[SubmittedRegion]:
    """Choose up to `NUM_SAMPLES` regions with values, if possible of different categories and images."""
    ordered = sorted(
        (region for region in content.taught if region.texts),
        key=lambda region: draw(seed, "sample", str(region.annotation), region.region),
    )
    chosen: list[SubmittedRegion] = []
    # Three passes, each with a weaker condition, until there are enough.
    for same in (_same_image_or_category, _same_image, _same_region):
        for region in ordered:
            if len(chosen) < NUM_SAMPLES and not any(same(content, region, other) for other in chosen):
                chosen.append(region)
    return chosen


def _same_image_or_category(content: Content, one: SubmittedRegion, other: SubmittedRegion) -> bool:
    return _same_image(content, one, other) or category_of(content.config, one) == category_of(content.config, other)


def _same_image(_content: Content, one: SubmittedRegion, other: SubmittedRegion) -> bool:
    return one.image == other.image


def _same_region(_content: Content, one: SubmittedRegion, other: SubmittedRegion) -> bool:
    return (one.annotation, one.region) == (other.annotation, other.region)


def draw_sample(region: SubmittedRegion, image_path: Path) -> bytes:
    """Return a PNG of the image with the region's mask tinted and outlined, and its field values below."""
    with Image.open(image_path) as image:
        scale = min(_WIDTH_PX / image.width, _MAX_HEIGHT_PX / image.height)
        size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        pixels = np.asarray(image.convert("RGB").resize(size, Image.Resampling.BILINEAR), np.float32)
    mask_image = Image.fromarray(decode_mask(region.mask)).resize(size, Image.Resampling.NEAREST)
    mask = np.asarray(mask_image, np.bool_)
    tinted = np.where(mask[..., None], 0.6 * pixels + 0.4 * _COLOR, 0.8 * pixels)
    tinted[_outline(mask)] = _COLOR
    lines = sample_lines(region)
    canvas = Image.new("RGB", (_WIDTH_PX, size[1] + _LINE_PX * len(lines) + 2 * _MARGIN_PX), "white")
    canvas.paste(Image.fromarray(tinted.astype(np.uint8)), (0, 0))
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(12)
    for idx, line in enumerate(lines):
        pen.text((_MARGIN_PX, size[1] + _MARGIN_PX + idx * _LINE_PX), line, fill="black", font=font)
    buffer = io.BytesIO()
    canvas.quantize(128, Image.Quantize.FASTOCTREE).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def sample_lines(region: SubmittedRegion) -> list[str]:
    """Return one line per field: its value, and before it the suggestion if an annotator changed it."""
    lines = []
    for name, values in sorted(region.texts.items()):
        before = ", ".join((region.suggestion or {}).get(name, [])) if name in region.changed else ""
        lines.append(_short(f"{name}: {f'{before} -> ' if before else ''}{', '.join(values)}"))
    return lines


def _short(text: str) -> str:
    # Characters that the built-in font lacks are escaped; README.md has the original text.
    line = " ".join(text.encode("latin-1", "backslashreplace").decode("latin-1").split())
    return line if len(line) <= _MAX_LINE_CHARS else f"{line[: _MAX_LINE_CHARS - 3]}..."


def _outline(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the pixels of the mask with a neighbour outside it."""
    padded = np.pad(mask, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    edge: NDArray[np.bool_] = mask & ~inner
    return edge
