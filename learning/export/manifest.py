"""The manifest of a version: counts, parents and the SHA-256 of every other file. The version's name is a hash of it.

A manifest of another release with the same schema version is accepted: unknown keys are ignored, and missing ones that
can be empty are empty.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from learning.export.counts import Content, counts_of
from learning.export.layouts import Format, canonical_json
from learning.export.osprey_724k import Entry
from learning.export.staging import ExportRefused
from learning.submitted.submissions import Submissions

SCHEMA_VERSION = 2
MANIFEST, CONFIG = "manifest.json", "label_config.xml"
_HASH_CHARS = 12


def manifest_of(
    submissions: Submissions, content: Content, layout: Format, settings: Mapping[str, Any], folder: Path
) -> dict[str, Any]:
    """Return the manifest of the files in `folder`, without parents; `settings` are the options of the export."""
    files = {path.relative_to(folder).as_posix(): file_record(path) for path in folder.rglob("*") if path.is_file()}
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "format": layout,
        "project": {"id": submissions.project_id, "title": submissions.title},
        "label_config": {
            "sha256": files[CONFIG]["sha256"],
            "fields": {each.name: each.role for each in content.config.fields},
        },
        "options": dict(settings),
        **counts_of(content, submissions.counts),
        "files": dict(sorted(files.items())),
    }
    return manifest | {"version": f"{series_of(submissions.project_id, layout)}-{_content_hash(manifest)}"}


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest of a version.

    Raises:
        ExportRefused: there is no readable manifest, or it has another schema version.
    """
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text("utf-8"))
        found = manifest.get("schema_version", SCHEMA_VERSION)
    except (OSError, ValueError, AttributeError) as error:
        raise ExportRefused(f"{folder} is not a complete export: {error}") from error
    if found != SCHEMA_VERSION:
        raise ExportRefused(f"{folder} has schema version {found!r}, expected {SCHEMA_VERSION}; export it again")
    empty: dict[str, Any] = {"project": {}, "label_config": {}, "options": {}, "counts": {}, "parents": [], "files": {}}
    return {**empty, "version": folder.name, **manifest}


def latest_version(out: Path, project_id: int, layout: Format = "osprey-724k") -> Path | None:
    """Return the folder of the latest version, or None before the first export."""
    try:
        name = pointer_of(out, project_id, layout).read_text("utf-8").strip()
    except FileNotFoundError:
        return None
    return out / name if (out / name / MANIFEST).exists() else None


def parents_of(out: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the latest version before this one, and whether the labeling config has changed since."""
    latest = latest_version(out, manifest["project"]["id"], manifest["format"])
    if latest is None or latest.name == manifest["version"]:
        return {"parents": [], "label_config_changed": None}
    try:
        before = read_manifest(latest)["label_config"].get("sha256")
    except ExportRefused:  # another schema version: it still is the version before
        return {"parents": [latest.name], "label_config_changed": None}
    return {"parents": [latest.name], "label_config_changed": before != manifest["label_config"]["sha256"]}


def series_of(project_id: int, layout: Format) -> str:
    """Return the name that all versions of a project in one layout begin with; `-<hash>` follows."""
    return str(project_id) if layout == "osprey-724k" else f"{project_id}-{layout}"


def pointer_of(out: Path, project_id: int, layout: Format) -> Path:
    """Return the path of the file that names the latest version."""
    return out / f"{series_of(project_id, layout)}.latest"


def file_record(path: Path) -> dict[str, Any]:
    """Return hash and size of a file; for training files also the number of entries and of question-answer pairs."""
    data = path.read_bytes()
    record: dict[str, Any] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    if path.suffix in (".jsonl", ".txt"):
        record["entries"] = data.count(b"\n")
    elif path.name.startswith(("osprey_", "click_")):
        found = json.loads(data)
        record |= {"entries": len(found), "pairs": sum(map(_num_pairs, found))}
    return record


def _num_pairs(entry: Entry) -> int:
    texts = (*(entry.get("description") or ()), *(entry.get("questions") or ()))
    return len(texts) + len(entry.get("conversations") or ()) // 2


def _content_hash(manifest: Mapping[str, Any]) -> str:
    """Return a hash of the submissions and the layout.

    Parquet files are left out, because their bytes depend on pyarrow's version. Other files have the same content.
    """
    files = {name: file["sha256"] for name, file in manifest["files"].items() if not name.endswith(".parquet")}
    content = {**{key: manifest[key] for key in ("schema_version", "format", "project", "options")}, "files": files}
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()[:_HASH_CHARS]
