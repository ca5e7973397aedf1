"""A version's manifest: figures, parents, and the SHA-256 of every other file; the name comes from it.

Neighbours: `learning/export/version.py` (writes and reads versions), `learning/export/counts.py` (counts).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from learning.export.counts import Content, figures_of
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
    """The manifest of the files in `folder`, without parents; `settings` are what the layout was made with."""
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
        **figures_of(content, submissions.counts),
        "files": dict(sorted(files.items())),
    }
    return manifest | {"version": f"{series_of(submissions.project_id, layout)}-{_content_hash(manifest)}"}


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a version.

    Raises:
        ExportRefused: none that can be read, or one of another schema version.
    """
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text("utf-8"))
        found = manifest.get("schema_version")
    except (OSError, ValueError, AttributeError) as error:
        raise ExportRefused(f"{folder} is not a complete export: {error}") from error
    if found != SCHEMA_VERSION:
        raise ExportRefused(f"{folder} has schema version {found!r}, expected {SCHEMA_VERSION}; export it again")
    return manifest


def latest_version(out: Path, project_id: int, layout: Format = "osprey-724k") -> Path | None:
    """The folder of the version exported last, or None before the first one."""
    try:
        name = pointer_of(out, project_id, layout).read_text("utf-8").strip()
    except FileNotFoundError:
        return None
    return out / name if (out / name / MANIFEST).exists() else None


def parents_of(out: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What was the latest version before this one, and whether the label config is another since."""
    latest = latest_version(out, manifest["project"]["id"], manifest["format"])
    if latest is None or latest.name == manifest["version"]:
        return {"parents": [], "label_config_changed": None}
    try:
        before = read_manifest(latest)["label_config"]["sha256"]
    except ExportRefused:  # of an earlier release: still the version before
        return {"parents": [latest.name], "label_config_changed": None}
    return {"parents": [latest.name], "label_config_changed": before != manifest["label_config"]["sha256"]}


def series_of(project_id: int, layout: Format) -> str:
    """What the versions of a project in one layout are called; `-<hash>` follows."""
    return str(project_id) if layout == "osprey-724k" else f"{project_id}-{layout}"


def pointer_of(out: Path, project_id: int, layout: Format) -> Path:
    """The file that names the latest version."""
    return out / f"{series_of(project_id, layout)}.latest"


def file_record(path: Path) -> dict[str, Any]:
    """Hash, bytes and, where there are such things, entries and pairs of questions and answers."""
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
    """Hash of what was submitted and how it is laid out.

    Parquet files are left out: their bytes depend on pyarrow's version, their content is that of the other files.
    """
    files = {name: file["sha256"] for name, file in manifest["files"].items() if not name.endswith(".parquet")}
    content = {**{key: manifest[key] for key in ("schema_version", "format", "project", "options")}, "files": files}
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()[:_HASH_CHARS]
