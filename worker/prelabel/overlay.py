"""Draw a picture of an image's regions: numbered masks and outlines in colours, with their texts beside them."""

from __future__ import annotations

import colorsys
import textwrap

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from job_queue.mask_codec import decode_mask, mask_bounds_xyxy
from worker.prelabel.annotate import AnnotatedImage, DescribedRegion

_LONGEST_SIDE_PX = 1600  # of the image within the picture
_PANEL_PX = 460
_LINE_CHARACTERS = 62
_OPACITY = 0.4
_GOLDEN = 0.618  # of the colour wheel between two regions, so that regions next to each other in the list differ most


def draw_overlay(image: Image.Image, annotated: AnnotatedImage) -> Image.Image:
    """Draw the image with its regions on the left and their texts on the right."""
    scale = min(1.0, _LONGEST_SIDE_PX / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    pixels = np.asarray(image.convert("RGB").resize(size)).astype(np.float32)
    tags: list[tuple[int, int, int]] = []
    for idx, region in enumerate(annotated.regions):
        mask = cv2.resize(decode_mask(region.rle).view(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        colour = np.array(_colour(idx), dtype=np.float32)
        is_inside = mask.astype(np.bool_)
        pixels[is_inside] = (1 - _OPACITY) * pixels[is_inside] + _OPACITY * colour
        contours, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(pixels, contours, -1, tuple(float(value) for value in colour), 1)
        x0, y0, _, _ = mask_bounds_xyxy(region.rle)
        tags.append((idx, round(x0 * scale), round(y0 * scale)))
    font, lines = ImageFont.load_default(14), _lines(annotated)
    line_px = 18
    picture = Image.new("RGB", (size[0] + _PANEL_PX, max(size[1], line_px * (len(lines) + 1))), "white")
    picture.paste(Image.fromarray(pixels.astype(np.uint8)), (0, 0))
    draw = ImageDraw.Draw(picture)
    for idx, x, y in tags:
        box = draw.textbbox((x + 2, y + 1), str(idx), font=font)
        draw.rectangle((box[0] - 2, box[1] - 1, box[2] + 2, box[3] + 1), fill=_colour(idx))
        draw.text((x + 2, y + 1), str(idx), font=font, fill="black")
    for number, (shown_idx, text) in enumerate(lines):
        top = line_px * number + 6
        if shown_idx is not None:
            draw.rectangle((size[0] + 6, top + 2, size[0] + 16, top + 14), fill=_colour(shown_idx))
        draw.text((size[0] + 22, top), text, font=font, fill="black")
    return picture


def _lines(annotated: AnnotatedImage) -> list[tuple[int | None, str]]:
    """Return the panel's lines; the first line of each region has its index."""
    lines: list[tuple[int | None, str]] = []
    for idx, region in enumerate(annotated.regions):
        wrapped = [line for text in _texts(idx, region) for line in textwrap.wrap(text, _LINE_CHARACTERS)]
        lines += [(idx, wrapped[0]), *((None, f"   {line}") for line in wrapped[1:])]
    return lines or [(None, "No region was found.")]


def _texts(idx: int, region: DescribedRegion) -> list[str]:
    part_of = "" if region.parent is None else f", part of {region.parent}"
    fields = [f"{name}: {', '.join(texts)}" for name, texts in region.filled.suggestion.items() if texts]
    return [f"{idx}  {region.label or 'region'}{part_of} ({region.score:.2f})", *fields]


def _colour(idx: int) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(idx * _GOLDEN % 1.0, 0.75, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)
