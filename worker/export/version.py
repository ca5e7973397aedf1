"""Submitted annotations -> a folder of Osprey-724K files with provenance, and back.

    osprey_*.json      the five files of the layout, as far as the texts support them
    regions.jsonl      every region: mask, texts of all fields, suggestion, annotator, model version
    problems.jsonl     what is not in the export, with task and region
    images.txt         file name, task, address of each image, separated by tabs
    label_config.xml   the config the texts belong to
    manifest.json      schema version, counts, and the SHA-256 of every other file

The same annotations give the same bytes. The folder appears complete or not at all.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from label_config.reader import LabelConfig, read_label_config
from worker.errors import WorkerError
from worker.export.osprey_724k import FILES, Entry, category_of, corrected_category, entries_of
from worker.export.regions import ExportedRegion, Problem, regions_of

SCHEMA_VERSION = 1
MANIFEST, REGIONS, PROBLEMS, IMAGES, CONFIG = (
    "manifest.json",
    "regions.jsonl",
    "problems.jsonl",
    "images.txt",
    "label_config.xml",
)


class ExportRefused(WorkerError):
    """The target folder cannot be written, or a folder is not a complete export."""


@dataclass(frozen=True, slots=True)
class Export:
    """An export read back: `entries` by file name, `manifest` as written."""

    manifest: dict[str, Any]
    label_config: str
    regions: tuple[ExportedRegion, ...]
    problems: tuple[Problem, ...]
    entries: dict[str, list[Entry]]
    images: dict[str, str]


@dataclass(frozen=True, slots=True)
class _Annotation:
    regions: list[ExportedRegion]
    problems: list[Problem]


def export_project(
    project: Mapping[str, Any],
    tasks: Iterable[Mapping[str, Any]],
    out_dir: Path,
    *,
    on_task: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """Write the submitted annotations of a project into `out_dir` and return the manifest.

    Skipped annotations and drafts are not exported. `out_dir` may be absent, empty, or an earlier export,
    which is replaced.

    Args:
        project: Label Studio's project; `id`, `title` and `label_config` are used.
        tasks: its tasks with `data` and `annotations`, in any order.
        on_task: called after each task, for a progress bar.

    Raises:
        ConfigError: the project's label config cannot be read.
        ExportRefused: `out_dir` holds something else.
    """
    _check_target(out_dir)
    config = read_label_config(project["label_config"])
    counts: Counter[str] = Counter()
    images: dict[str, tuple[int, str]] = {}
    annotations: dict[tuple[int, int], _Annotation] = {}
    loose: list[Problem] = []
    for task in tasks:
        _read_task(config, task, counts, images, annotations, loose)
        if on_task is not None:
            on_task()
    ordered = [annotations[key] for key in sorted(annotations)]
    problems = [*sorted(loose, key=_problem_key), *(problem for each in ordered for problem in each.problems)]
    regions = [region for each in ordered for region in each.regions]
    entries = _entries(config, ordered)
    files = _files(project["label_config"], regions, problems, images, entries)
    manifest = _manifest(project, config, counts, regions, problems, entries, files)
    files[MANIFEST] = json.dumps(manifest, indent=2, sort_keys=True) + "\n"
    _write(files, out_dir)
    return manifest


def read_export(folder: Path) -> Export:
    """Read back what `export_project` wrote.

    Raises:
        ExportRefused: no manifest, another schema version, or a file that is not as it was written.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
        # Bytes, not text mode, which would turn a config's \r\n into \n and so change its hash.
        texts = {name: (folder / name).read_bytes().decode("utf-8") for name in manifest["files"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ExportRefused(f"{folder} is not a complete export: {error}") from error
    if manifest.get("schema_version") != SCHEMA_VERSION:
        raise ExportRefused(
            f"{folder} has schema version {manifest.get('schema_version')!r}, expected {SCHEMA_VERSION}; "
            "export it again"
        )
    for name, text in texts.items():
        if _sha256(text) != manifest["files"][name]["sha256"]:
            raise ExportRefused(f"{folder / name} has changed since it was exported; export it again")
    return Export(
        manifest=manifest,
        label_config=texts[CONFIG],
        regions=tuple(ExportedRegion.from_json(line) for line in _lines(texts[REGIONS])),
        problems=tuple(Problem(**line) for line in _lines(texts[PROBLEMS])),
        entries={name: json.loads(texts[name]) for name in FILES if name in texts},
        images={name: url for name, _, url in (line.split("\t") for line in texts[IMAGES].split("\n") if line)},
    )


def image_file_name(task_id: int, url: str) -> str:
    """The name under which the export knows a task's image.

    Without `_`: the reference's readers keep only what follows the last one.
    """
    if url.startswith("data:"):
        kind = re.match(r"data:image/(\w+)", url)
        stem, suffix = hashlib.sha256(url.encode()).hexdigest()[:12], f".{kind.group(1)}" if kind else ""
    else:
        parts = urlsplit(url)
        # A local file travels in the query: /data/local-files/?d=folder/picture.jpg
        path = PurePosixPath(unquote(parts.query.partition("d=")[2] if "local-files" in parts.path else parts.path))
        stem, suffix = path.stem, path.suffix
    return f"task{task_id}-{re.sub(r'[^A-Za-z0-9.-]+', '-', stem).strip('-.') or 'image'}{suffix.lower()}"


def _read_task(
    config: LabelConfig,
    task: Mapping[str, Any],
    counts: Counter[str],
    images: dict[str, tuple[int, str]],
    annotations: dict[tuple[int, int], _Annotation],
    loose: list[Problem],
) -> None:
    counts["tasks"] += 1
    task_id = task.get("id")
    if not isinstance(task_id, int):
        loose.append(Problem(None, None, None, f"a task without a number: id is {task_id!r}"))
        return
    for annotation in task.get("annotations") or ():
        annotation_id = annotation.get("id") if isinstance(annotation, Mapping) else None
        if not isinstance(annotation_id, int):
            loose.append(Problem(task_id, None, None, "an annotation without a number"))
            continue
        if annotation.get("was_cancelled"):
            counts["skipped_annotations"] += 1
            continue
        url = (task.get("data") or {}).get(config.image_key)
        if not isinstance(url, str) or not url:
            problem = f"the task's data has no image under {config.image_key!r}"
            loose.append(Problem(task_id, annotation_id, None, problem))
            continue
        counts["annotations"] += 1
        name = image_file_name(task_id, url)
        images[name] = (task_id, _shown_url(url))
        regions, problems = regions_of(config, task, annotation, name)
        kept = [region for region in regions if region.image_wh == regions[0].image_wh]
        problems += [
            Problem(
                task_id, annotation_id, region.region, f"its image size {region.image_wh} is not that of the others"
            )
            for region in regions
            if region not in kept
        ]
        annotations[task_id, annotation_id] = _Annotation(kept, problems)


def _entries(config: LabelConfig, annotations: Sequence[_Annotation]) -> dict[str, list[Entry]]:
    vocabulary = sorted(
        {
            category
            for annotation in annotations
            for region in annotation.regions
            if not region.is_part and (category := category_of(config, region))
        }
    )
    entries: dict[str, list[Entry]] = {name: [] for name in FILES}
    for annotation in annotations:
        for name, entry in entries_of(config, annotation.regions, vocabulary).items():
            entries[name].append(entry)
    return {name: found for name, found in entries.items() if found}


def _files(
    label_config: str,
    regions: Sequence[ExportedRegion],
    problems: Sequence[Problem],
    images: Mapping[str, tuple[int, str]],
    entries: Mapping[str, Sequence[Entry]],
) -> dict[str, str]:
    ordered_images = sorted(images.items(), key=lambda image: (image[1][0], image[0]))
    files = {
        CONFIG: label_config,
        REGIONS: "".join(f"{_json(region.to_json())}\n" for region in regions),
        PROBLEMS: "".join(f"{_json(asdict(problem))}\n" for problem in problems),
        IMAGES: "".join(f"{name}\t{task_id}\t{url}\n" for name, (task_id, url) in ordered_images),
    }
    for name, found in entries.items():
        files[name] = "[\n" + ",\n".join(_json(entry) for entry in found) + "\n]\n"
    return files


def _manifest(
    project: Mapping[str, Any],
    config: LabelConfig,
    counts: Mapping[str, int],
    regions: Sequence[ExportedRegion],
    problems: Sequence[Problem],
    entries: Mapping[str, Sequence[Entry]],
    files: Mapping[str, str],
) -> dict[str, Any]:
    """Counts and hashes. No time and no address: the same annotations give the same manifest."""
    return {
        "schema_version": SCHEMA_VERSION,
        "project": {"id": project.get("id"), "title": project.get("title")},
        "fields": {field.name: field.role for field in config.fields},
        "counts": {
            "tasks": counts.get("tasks", 0),
            "annotations": counts.get("annotations", 0),
            "skipped_annotations": counts.get("skipped_annotations", 0),
            "regions": len(regions),
            "parts": sum(region.is_part for region in regions),
            "problems": len(problems),
            "regions_without_text": sum(not region.texts for region in regions),
            "regions_suggested": sum(region.suggestion is not None for region in regions),
            "regions_changed": sum(bool(region.changed) for region in regions),
            "hard_negatives": sum(
                not region.is_part and corrected_category(config, region) is not None for region in regions
            ),
        },
        "filled": dict(sorted(Counter(name for region in regions for name in region.texts).items())),
        "changed": dict(sorted(Counter(name for region in regions for name in region.changed).items())),
        "origins": dict(sorted(Counter(region.origin for region in regions).items())),
        "model_versions": dict(sorted(Counter(region.model_version or "none" for region in regions).items())),
        "pairs": {name: sum(_num_pairs(entry) for entry in found) for name, found in sorted(entries.items())},
        "files": {
            name: {"sha256": _sha256(text), "bytes": len(_encoded(text)), "entries": _num_entries(name, text, entries)}
            for name, text in sorted(files.items())
        },
    }


def _num_pairs(entry: Entry) -> int:
    return len(entry.get("description") or ()) + len(entry.get("conversations") or ()) // 2


def _num_entries(name: str, text: str, entries: Mapping[str, Sequence[Entry]]) -> int | None:
    if name in entries:
        return len(entries[name])
    return text.count("\n") if name in (REGIONS, PROBLEMS, IMAGES) else None


def _check_target(out_dir: Path) -> None:
    if not out_dir.exists():
        return
    if not out_dir.is_dir():
        raise ExportRefused(f"{out_dir} is a file; give a folder")
    if any(out_dir.iterdir()) and not (out_dir / MANIFEST).exists():
        raise ExportRefused(f"{out_dir} holds something that is no export; give a new or an empty folder")


def _write(files: Mapping[str, str], out_dir: Path) -> None:
    """All files, next to the target first: a full disk or a second export leaves the old one as it was."""
    out_dir = out_dir.resolve()
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out_dir.name}-", dir=out_dir.parent) as scratch:
        new, old = Path(scratch) / "new", Path(scratch) / "old"
        new.mkdir()
        for name, text in files.items():
            (new / name).write_bytes(_encoded(text))
        if out_dir.exists():
            out_dir.rename(old)
        new.rename(out_dir)
        shutil.rmtree(old, ignore_errors=True)


def _problem_key(problem: Problem) -> tuple[int, int, str]:
    return (problem.task or 0, problem.annotation or 0, problem.problem)


def _shown_url(url: str) -> str:
    """The image's address on one line; an image inside the task's data by its hash."""
    if url.startswith("data:"):
        return f"{url.partition(',')[0]},sha256:{hashlib.sha256(url.encode()).hexdigest()}"
    return re.sub(r"\s", "%20", url)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True, allow_nan=False)


def _encoded(text: str) -> bytes:
    # A lone surrogate, which a browser can send, has no UTF-8; as an escape it stays valid JSON.
    return text.encode("utf-8", "backslashreplace")


def _sha256(text: str) -> str:
    return hashlib.sha256(_encoded(text)).hexdigest()


def _lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.split("\n") if line]
