"""What people submitted -> an immutable version of training data, and back.

    <out>/<project>-<hash>/      of the layout osprey-724k; other layouts have their name in between
      train/, held_out/          the five Osprey-724K files, as far as the texts support them, and what a click asks
      data.json, held_out.json   data configs for a trainer: what a click asks (only with images)
      data_osprey_724k.json, ... the same of the five files
      images/                    the images under the names that the files use
      regions.jsonl              every region: mask, texts of all fields, suggestion, annotator, model version
      problems.jsonl             what is not in it or not as submitted, with task and region
      images.txt                 file name, task, address, side of each image, separated by tabs
      label_config.xml           the config the texts belong to
      README.md, samples/        the data card and its pictures
      manifest.json              schema version, figures, parents, and the SHA-256 of every other file
    <out>/<project>.latest       the name of the latest version

The hash in the name is that of the content: the same annotations give the same name, and the version that is there
stays untouched. A version appears complete or not at all (`learning/export/staging.py`).

Neighbours: `learning/submitted/submissions.py` (what comes in), `learning/export/layouts.py` (the files).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

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
from learning.export.staging import ExportRefused, point, publish, staging_folder, write_file
from learning.submitted.checks import fit_all
from learning.submitted.problems import Problem
from learning.submitted.regions import SubmittedRegion
from learning.submitted.submissions import Submissions, of_one_size, shown_url, submissions_of_tasks
from worker.images.resolver import ImageResolver

__all__ = [
    "DataVersion",
    "Export",
    "ExportOptions",
    "export_project",
    "export_version",
    "latest_version",
    "read_export",
    "read_manifest",
]

REGIONS, PROBLEMS, IMAGES, CARD = "regions.jsonl", "problems.jsonl", "images.txt", "README.md"


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """How submissions become a version. `edited_weight` is what an answer counts that a person wrote or changed."""

    format: Format = "osprey-724k"
    held_out_share: float = 0.1
    seed: int = 0
    edited_weight: float = 3.0

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if self.format not in FORMATS:
            raise ValueError(f"unknown format {self.format!r}; known: {', '.join(FORMATS)}")
        if not 0 <= self.held_out_share < 1:
            raise ValueError(f"held_out_share must be at least 0 and below 1, got {self.held_out_share}")
        if not 0 < self.edited_weight <= 1000:
            raise ValueError(f"edited_weight must be above 0 and at most 1000, got {self.edited_weight}")


@dataclass(frozen=True, slots=True)
class DataVersion:
    """An exported version; `is_new` is False where the same content had been exported before."""

    path: Path
    manifest: dict[str, Any]
    is_new: bool


@dataclass(frozen=True, slots=True)
class Export:
    """A version read back: `entries` by path of the file, `images` address by file name."""

    manifest: dict[str, Any]
    label_config: str
    regions: tuple[SubmittedRegion, ...]
    problems: tuple[Problem, ...]
    entries: dict[str, list[Entry]]
    images: dict[str, str]
    sides: dict[str, str] = field(default_factory=dict)


def export_project(
    project: Mapping[str, Any],
    tasks: Iterable[Mapping[str, Any]],
    out: Path,
    options: ExportOptions | None = None,
    images: ImageResolver | None = None,
    *,
    on_task: Callable[[], None] | None = None,
    on_image: Callable[[], None] | None = None,
) -> DataVersion:
    """`export_version` of the submitted annotations in Label Studio's tasks; see `submissions_of_tasks`."""
    submissions = submissions_of_tasks(project, tasks, on_task=on_task)
    return export_version(submissions, out, options, images, on_image=on_image)


def export_version(
    submissions: Submissions,
    out: Path,
    options: ExportOptions | None = None,
    images: ImageResolver | None = None,
    *,
    on_image: Callable[[], None] | None = None,
) -> DataVersion:
    """Write a version below `out`, or find the one that is there, and point to it as the latest.

    Args:
        submissions: what people submitted, and what was wrong with it.
        out: the folder that holds versions.
        options: layout, split and weights.
        images: fetches the images into the version; None leaves them out.
        on_image: called after each image, for a progress bar.

    Raises:
        ConfigError: the label config cannot be read.
        ExportRefused: `out` cannot hold versions, another export writes there, or the version there is damaged.
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
            publish(folder, target)
        else:
            manifest = read_manifest(target)
        point(pointer_of(out, submissions.project_id, options.format), target.name)
    return DataVersion(target, manifest, is_new)


def read_export(folder: Path) -> Export:
    """Read back what `export_version` wrote.

    Raises:
        ExportRefused: no manifest, another schema version, or a file that is not as it was written.
    """
    manifest = read_manifest(folder)
    texts: dict[str, str] = {}
    try:
        for name, written in manifest["files"].items():
            data = (folder / name).read_bytes()
            if hashlib.sha256(data).hexdigest() != written["sha256"]:
                raise ExportRefused(f"{folder / name} has changed since it was exported; export it again")
            if name.endswith((".json", ".jsonl", ".txt", ".xml")):
                # Bytes, not text mode, which would turn a config's \\r\\n into \\n.
                texts[name] = data.decode("utf-8")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ExportRefused(f"{folder} is not a complete export: {error}") from error
    images = [line.split("\t") for line in texts[IMAGES].split("\n") if line]
    return Export(
        manifest=manifest,
        label_config=texts[CONFIG],
        regions=tuple(SubmittedRegion.from_json(line) for line in _lines(texts[REGIONS])),
        problems=tuple(Problem(**line) for line in _lines(texts[PROBLEMS])),
        entries={name: json.loads(text) for name, text in texts.items() if "/" in name},
        images={name: url for name, _, url, _ in images},
        sides={name: side for name, _, _, side in images},
    )


def _content(
    submissions: Submissions,
    options: ExportOptions,
    images: ImageResolver | None,
    folder: Path,
    on_image: Callable[[], None] | None,
) -> Content:
    """Regions that fit the config, their images written into `folder`, and the side of each image."""
    config = read_label_config(submissions.label_config)
    ordered = sorted(submissions.regions, key=lambda region: (region.task, region.annotation))
    same_size, odd = of_one_size(ordered)
    regions, unfit = fit_all(config, same_size)
    staged = Staged({}, ()) if images is None else stage_images(submissions.images, regions, images, folder, on_image)
    # The same once: what was read into a store was held against a config before.
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
    """Write all files but card and manifest; the manifest without parents."""
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
    for name, data in files.items():
        write_file(folder / name, data)
    settings = {**asdict(options), "with_images": content.has_images}
    del settings["format"]
    return manifest_of(submissions, content, options.format, settings, folder)


def _write_card(content: Content, options: ExportOptions, manifest: dict[str, Any], folder: Path) -> None:
    """Card, its pictures and, last, the manifest."""
    samples = []
    if content.has_images:
        for idx, region in enumerate(chosen_samples(content, options.seed), start=1):
            name = f"samples/{idx}.png"
            write_file(folder / name, draw_sample(region, folder / FOLDER / region.image))
            samples.append((name, region))
    write_file(folder / CARD, encoded(card_of(manifest, samples)))
    for name in (CARD, *(name for name, _ in samples)):
        manifest["files"][name] = file_record(folder / name)
    write_file(folder / MANIFEST, encoded(json.dumps(manifest, indent=2, sort_keys=True) + "\n"))


def _problem_key(problem: Problem) -> tuple[int, int, str, str]:
    return (problem.task or 0, problem.annotation or 0, problem.region or "", problem.problem)


def _lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.split("\n") if line]
