"""A folder of images, without Label Studio -> one JSON line per image, and pictures of masks and texts.

The output file itself holds what is done, so that the next run continues one that was killed. An image that cannot be
read is reported as a failure; the run continues.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from job_queue.errors import OspreyError
from job_queue.mask_codec import mask_bounds_xyxy
from label_config.reader import Field, FieldQuestion, LabelConfig, OutputControl
from worker.images.decoding import decode_image
from worker.images.resolver import ResolvedImage
from worker.prelabel.annotate import AnnotatedImage, ImageAnnotator
from worker.prelabel.overlay import draw_overlay

_LOG = logging.getLogger(__name__)

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"})
_ANSWER_TOKENS = 96


@dataclass(frozen=True, slots=True)
class FileFailure:
    """Why an image has no line."""

    path: str
    message: str


@dataclass(slots=True)
class FolderProgress:
    """What a run has done so far. `skipped` images already had a line of this model."""

    total: int = 0
    skipped: int = 0
    described: int = 0
    regions: int = 0
    failures: list[FileFailure] = field(default_factory=list)


def config_of_questions(questions: Sequence[str]) -> LabelConfig:
    """Make a config that asks these questions about every region, as free text.

    Raises:
        ValueError: a question does not contain `{region}` exactly once.
    """
    for question in questions:
        if question.count("{region}") != 1:
            raise ValueError(
                f"expected a question that contains {{region}} exactly once, got {question!r}; "
                "write for example: What is {region} made of?"
            )
    fields = tuple(
        Field(f"question_{number}", "TextArea", "custom", (FieldQuestion(question, "region", _ANSWER_TOKENS),))
        for number, question in enumerate(questions, start=1)
    )
    output = OutputControl("mask", "bitmask", ("Object", "Part"))
    return LabelConfig("image", "image", prompts=(), output=output, fields=fields)


def describe_folder(
    folder: Path,
    out: Path,
    annotator: ImageAnnotator,
    config: LabelConfig,
    overlay_folder: Path | None,
    max_pixels: int,
    on_progress: Callable[[FolderProgress], None] = lambda _: None,
) -> FolderProgress:
    """Append a line to `out` for every image in the folder and its subfolders that has none yet.

    Args:
        folder: the folder of images.
        out: the file of JSON lines; created if it does not exist.
        annotator: the models.
        config: the questions.
        overlay_folder: the folder for pictures, under the images' own names; None: no pictures.
        max_pixels: a larger image is a failure.
        on_progress: called after every image.
    """
    names = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES]
    progress = FolderProgress(total=len(names))
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("a+b") as lines:
        done = _described_before(lines, annotator.model_version)
        progress.skipped = sum(str(name) in done for name in names)
        on_progress(progress)
        for name in names:
            if str(name) in done:
                continue
            try:
                image = _read(folder / name, str(name), max_pixels)
                annotated = annotator.annotate(image, config)
                if overlay_folder is not None:
                    picture = overlay_folder / name.with_name(name.name + ".png")
                    picture.parent.mkdir(parents=True, exist_ok=True)
                    draw_overlay(image.image, annotated).save(picture)
                lines.write(json.dumps(line_of(str(name), annotated), ensure_ascii=False).encode() + b"\n")
                lines.flush()
            except (OspreyError, ValueError, RuntimeError, MemoryError, OSError) as error:
                progress.failures.append(FileFailure(str(name), f"{type(error).__name__}: {error}"))
                _LOG.info("%s is not described: %s: %s", name, type(error).__name__, error)
            else:
                progress.described += 1
                progress.regions += len(annotated.regions)
            on_progress(progress)
    return progress


def line_of(name: str, annotated: AnnotatedImage) -> dict[str, Any]:
    """Return an image as plain JSON. `parent` is the `id` of the region around a part; boxes are x, y, w, h."""
    return {
        "image": name,
        "width": annotated.image_wh[0],
        "height": annotated.image_wh[1],
        "sha256": annotated.sha256,
        "score": round(annotated.score, 4),
        "model_version": annotated.model_version,
        "segmenter_version": annotated.segmenter_version,
        "regions": [
            {
                "id": idx,
                "parent": region.parent,
                "label": region.label,
                "score": round(region.score, 4),
                "mask_score": round(region.mask_score, 4),
                "area": region.area_px,
                "bbox": _box_xywh(region.rle),
                "mask": region.rle,
                "fields": {
                    name: {"values": texts, "confidence": region.filled.confidence.get(name)}
                    for name, texts in region.filled.suggestion.items()
                },
            }
            for idx, region in enumerate(annotated.regions)
        ],
    }


def _box_xywh(rle: Any) -> list[int]:
    x0, y0, x1, y1 = mask_bounds_xyxy(rle)
    return [x0, y0, x1 - x0, y1 - y0]


def _read(path: Path, name: str, max_pixels: int) -> ResolvedImage:
    data = path.read_bytes()
    return ResolvedImage(decode_image(data, name, max_pixels), hashlib.sha256(data).hexdigest())


def _described_before(lines: BinaryIO, model_version: str) -> set[str]:
    """Return the images that have a complete line of this model; cut off an incomplete line at the end (a kill)."""
    lines.seek(0)
    done: set[str] = set()
    end = 0
    for line in lines:
        if not line.endswith(b"\n"):
            break
        end += len(line)
        try:
            entry = json.loads(line)
        except ValueError as error:
            raise ValueError(
                f"{getattr(lines, 'name', 'the output file')} contains a line that is not JSON: {error}"
            ) from error
        if entry.get("model_version") == model_version:
            done.add(str(entry.get("image")))
    lines.truncate(end)
    lines.seek(end)
    return done
