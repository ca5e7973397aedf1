"""Write submissions as an immutable version of training data, and read it back.

    <out>/<project>-<hash>/      of the layout osprey-724k; other layouts have their name in between
      train/, held_out/          the five Osprey-724K files, as far as the values allow, and the questions of a click
      data.json, held_out.json   data configs for a trainer: the questions of a click (only with images)
      data_osprey_724k.json, ... the same for the five files
      images/                    the images under the names that the files use
      regions.jsonl              every region: mask, values of all fields, suggestion, annotator, model version
      problems.jsonl             what was left out or changed, with task and region
      images.txt                 file name, task, address, side of each image, separated by tabs
      label_config.xml           the labeling config of the values
      README.md, samples/        the data card and its pictures
      manifest.json              schema version, counts, parents, and the SHA-256 of every other file
    <out>/<project>.latest       the name of the latest version

The hash in the name is that of the content: the same annotations give the same name, and an existing version is not
written again. A version appears complete or not at all (`learning/export/staging.py`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from job_queue.records import known_fields
from label_config.reader import read_label_config
from learning.export.counts import Content
from learning.export.data_card import card_of
from learning.export.image_folder import FOLDER, Staged, stage_images
from learning.export.layouts import FORMATS, Format, canonical_json, encoded, layout_files
from learning.export.manifest import (
    CONFIG,
    MANIFEST,
    file_record,
    latest_version,
    manifest_of,
    parents_of,
    pointer_of,
    read_manifest,
    series_of,
)
from learning.export.osprey_724k import Entry, Teaching
from learning.export.samples import chosen_samples, draw_sample
from learning.export.splits import Picture, sides_of
from learning.export.staging import ExportRefused, staging_folder
from learning.submitted.checks import fit_all
from learning.submitted.problems import Problem
from learning.submitted.regions import SubmittedRegion
from learning.submitted.submissions import Submissions, of_one_size, shown_url
from registry.atomic_writes import Disk
from worker.images.resolver import ImageResolver

__all__ = [
    "DataVersion",
    "Export",
    "ExportOptions",
    "export_version",
    "latest_version",
    "read_export",
    "read_manifest",
]

REGIONS, PROBLEMS, IMAGES, CARD = "regions.jsonl", "problems.jsonl", "images.txt", "README.md"


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """Options of an export.

    Attributes:
        format: the layout of the files.
        held_out_share: expected share of images that are held out, 0 to below 1.
        seed: for the split and for sampling wrong categories.
        edited_weight: training weight of answers that an annotator wrote or changed.
    """

    format: Format = "osprey-724k"
    held_out_share: float = 0.1
    seed: int = 0
    edited_weight: float = 3.0

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: a value is out of range; the message names it.
        """
        if self.format not in FORMATS:
            raise ValueError(f"unknown format {self.format!r}; known: {', '.join(FORMATS)}")
        if not 0 <= self.held_out_share < 1:
            raise ValueError(f"held_out_share must be at least 0 and below 1, got {self.held_out_share}")
        if not 0 < self.edited_weight <= 1000:
            raise ValueError(f"edited_weight must be above 0 and at most 1000, got {self.edited_weight}")


@dataclass(frozen=True, slots=True)
class DataVersion:
    """An exported version; `is_new` is False if the same content was exported before."""

    path: Path
    manifest: dict[str, Any]
    is_new: bool


@dataclass(frozen=True, slots=True)
class Export:
    """A version read back.

    Attributes:
        manifest: see `learning/export/manifest.py`.
        label_config: XML of the labeling config.
        regions: all submitted regions.
        problems: what was left out or changed.
        entries: training entries by path of their file.
        images: address of each image by file name.
        sides: side of the split by file name.
    """

    manifest: dict[str, Any]
    label_config: str
    regions: tuple[SubmittedRegion, ...]
    problems: tuple[Problem, ...]
    entries: dict[str, list[Entry]]
    images: dict[str, str]
    sides: dict[str, str] = field(default_factory=dict)


def export_version(
    submissions: Submissions,
    out: Path,
    options: ExportOptions | None = None,
    images: ImageResolver | None = None,
    *,
    on_image: Callable[[], None] | None = None,
) -> DataVersion:
    """Write a version below `out`, or find the existing one with the same content, and make it the latest.

    Args:
        submissions: the submitted regions and their problems.
        out: the folder that holds versions.
        options: layout, split and weights.
        images: reads the images that are written into the version; None leaves them out.
        on_image: called after each image, for a progress bar.

    Raises:
        ConfigError: the labeling config cannot be read.
        ExportRefused: `out` is a file, another export writes there, or the existing version is damaged.
    """
    options = options or ExportOptions()
    with staging_folder(out, series_of(submissions.project_id, options.format)) as folder:
        content = _content(submissions, options, images, folder, on_image)
        manifest = _write_content(submissions, content, options, folder)
        manifest |= parents_of(out, manifest)
        target = out / manifest["version"]
        is_new = not target.exists()
        if is_new:
            _write_card(content, options, manifest, folder)
            Disk().publish(folder, target)
        else:
            manifest = read_manifest(target)
        Disk().write(pointer_of(out, submissions.project_id, options.format), f"{target.name}\n".encode())
    return DataVersion(target, manifest, is_new)


def read_export(folder: Path) -> Export:
    """Read a version that `export_version` wrote, in this or another release.

    Raises:
        ExportRefused: there is no manifest, it has another schema version, or a file has changed or is missing.
    """
    manifest = read_manifest(folder)
    texts: dict[str, str] = {}
    try:
        for name, written in manifest["files"].items():
            data = (folder / name).read_bytes()
            if hashlib.sha256(data).hexdigest() != written["sha256"]:
                raise ExportRefused(f"{folder / name} has changed since it was exported; export it again")
            if name.endswith((".json", ".jsonl", ".txt", ".xml")):
                # Not in text mode, which would turn \\r\\n of a config into \\n.
                texts[name] = data.decode("utf-8")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ExportRefused(f"{folder} is not a complete export: {error}") from error
    if missing := {CONFIG, REGIONS, PROBLEMS, IMAGES} - texts.keys():
        raise ExportRefused(f"{folder} is not a complete export: its manifest does not list {sorted(missing)}")
    images = [line.split("\t") for line in texts[IMAGES].split("\n") if line]
    return Export(
        manifest=manifest,
        label_config=texts[CONFIG],
        regions=tuple(SubmittedRegion.from_json(line) for line in _lines(texts[REGIONS])),
        problems=tuple(Problem(**known_fields(Problem, line)) for line in _lines(texts[PROBLEMS])),
        entries={name: json.loads(text) for name, text in texts.items() if "/" in name},
        images={name: url for name, _, url, *_ in images},
        sides={name: side for name, _, _, side, *_ in images},
    )


def _content(
    submissions: Submissions,
    options: ExportOptions,
    images: ImageResolver | None,
    folder: Path,
    on_image: Callable[[], None] | None,
) -> Content:
    """Check the regions against the config, write their images into `folder`, and split the images."""
    config = read_label_config(submissions.label_config)
    ordered = sorted(submissions.regions, key=lambda region: (region.task, region.annotation))
    same_size, odd = of_one_size(ordered)
    regions, unfit = fit_all(config, same_size)
    staged = Staged({}, ()) if images is None else stage_images(submissions.images, regions, images, folder, on_image)
    # A set, because regions from the store were checked before and may have the same problem twice.
    problems = {*submissions.problems, *odd, *unfit, *staged.problems}
    named = {name: staged.images[name].name if name in staged.images else name for name in submissions.images}
    named |= {region.image: staged.renamed(region).image for region in regions}
    pictures = []
    for name in named:
        ref, image = submissions.images.get(name), staged.images.get(name)
        task, url = (None, name) if ref is None else (ref.task_id, shown_url(ref.url))
        seen = (None, None) if image is None else (image.sha256, image.look)
        pictures.append(Picture(named[name], task or 0, url, *seen))
    return Content(
        config=config,
        regions=tuple(staged.renamed(region) for region in regions),
        taught=tuple(staged.renamed(region) for region in regions if images is None or staged.has(region)),
        problems=tuple(sorted(problems, key=_problem_key)),
        sides=sides_of(pictures, options.held_out_share, options.seed),
        images={picture.name: (picture.task, picture.url) for picture in pictures},
        has_images=images is not None,
    )


def _write_content(submissions: Submissions, content: Content, options: ExportOptions, folder: Path) -> dict[str, Any]:
    """Write all files except card and manifest; return the manifest without parents."""
    ordered_images = sorted(content.images.items(), key=lambda image: (image[1][0] or 0, image[0]))
    files: dict[str, bytes] = {
        CONFIG: encoded(submissions.label_config),
        REGIONS: encoded("".join(f"{canonical_json(region.to_json())}\n" for region in content.regions)),
        PROBLEMS: encoded("".join(f"{canonical_json(asdict(problem))}\n" for problem in content.problems)),
        IMAGES: encoded(
            "".join(f"{name}\t{task}\t{url}\t{content.sides[name]}\n" for name, (task, url) in ordered_images)
        ),
    }
    teaching = Teaching(options.edited_weight, options.seed)
    files |= layout_files(options.format, content, teaching, folder / FOLDER if content.has_images else None)
    disk = Disk()
    for name, data in files.items():
        disk.write_new(folder / name, data)
    settings = {**asdict(options), "with_images": content.has_images}
    del settings["format"]
    return manifest_of(submissions, content, options.format, settings, folder)


def _write_card(content: Content, options: ExportOptions, manifest: dict[str, Any], folder: Path) -> None:
    """Write the data card, its pictures and, last, the manifest."""
    samples, disk = [], Disk()
    if content.has_images:
        for idx, region in enumerate(chosen_samples(content, options.seed), start=1):
            name = f"samples/{idx}.png"
            disk.write_new(folder / name, draw_sample(region, folder / FOLDER / region.image))
            samples.append((name, region))
    disk.write_new(folder / CARD, encoded(card_of(manifest, samples)))
    for name in (CARD, *(name for name, _ in samples)):
        manifest["files"][name] = file_record(folder / name)
    disk.write_new(folder / MANIFEST, encoded(json.dumps(manifest, indent=2, sort_keys=True) + "\n"))


def _problem_key(problem: Problem) -> tuple[int, int, str, str]:
    return (problem.task or 0, problem.annotation or 0, problem.region or "", problem.problem)


def _lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.split("\n") if line]
