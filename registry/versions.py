"""The model registry: a folder per version, one pointer to the champion, and the history of the pointer.

    champion.json            the champion's name and the history, in one file, so that they cannot disagree
    versions/NAME/           version.json, and adapter/ (PEFT) or checkpoint/ (a complete Osprey folder)

A version appears complete or not at all. The pointer names a complete version. If the pointer is absent or null, the
base checkpoint (OSPREY_MODEL) is the champion. This module does not import torch, so any process can read versions.

Both files may come from another release: unknown keys are ignored, and missing optional ones take their default.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from job_queue.errors import OspreyError
from job_queue.records import known_fields
from registry.atomic_writes import Disk, locked, sha256_of

Kind = Literal["adapter", "checkpoint"]

BASE = "base"  # the name that stands for OSPREY_MODEL in the pointer and the history
SCHEMA_VERSION = 1
_VERSIONS, _POINTER, _LOCK, _VERSION_FILE, _STAGING = "versions", "champion.json", "lock", "version.json", ".adding-"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


class RegistryError(OspreyError):
    """The request is invalid or a file of the registry is damaged. The message names it and the next step."""


@dataclass(frozen=True, slots=True)
class Base:
    """The checkpoint that an adapter was trained on.

    Attributes:
        path: folder of the checkpoint.
        fingerprint: of that checkpoint, by `osprey_model/weights/checkpoint.py`.
        version: a registered version of kind "checkpoint", used instead of `path`.
    """

    path: str
    fingerprint: str
    version: str | None = None


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One complete version.

    Attributes:
        name: its name in the registry.
        kind: whether `weights` is a PEFT adapter or a complete checkpoint.
        folder: its directory.
        created: when it was added, ISO 8601 in UTC.
        base: the checkpoint that an adapter was trained on.
        data_version: the export version it was trained on.
        config: settings and facts of the training run.
        metrics: results of the training run.
        parents: versions it was trained from.
        gate: the latest verdict of the gate; None if the gate has not run.
        files: relative path -> `bytes` and `sha256`.
    """

    name: str
    kind: Kind
    folder: Path
    created: str = ""
    base: Base | None = None
    data_version: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    parents: tuple[str, ...] = ()
    gate: dict[str, Any] | None = None
    files: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def weights(self) -> Path:
        """The folder of the adapter or checkpoint."""
        return self.folder / self.kind

    @property
    def model_version(self) -> str:
        """The version string in predictions: the name and 12 hexadecimal digits of the content hash."""
        content = sorted((path, entry["sha256"]) for path, entry in self.files.items())
        return f"{self.name}@{_digest(content)[:12]}"

    def base_folders(self) -> tuple[Path, ...]:
        """Return folders that may hold an adapter's base checkpoint; the caller compares the fingerprint."""
        if self.base is None:
            return ()
        return (
            Path(self.base.path)
            if self.base.version is None
            else self.folder.parent / self.base.version / "checkpoint",
        )

    def to_json(self) -> dict[str, Any]:
        """Return the content of version.json."""
        data = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in ("folder", "base")}
        base = dataclasses.asdict(self.base) if self.base else None
        return {"schema_version": SCHEMA_VERSION, **data, "parents": list(self.parents), "base": base}


@dataclass(frozen=True, slots=True)
class Move:
    """One move of the champion pointer. `source` and `target` are version names, or `base` for OSPREY_MODEL."""

    at: str
    action: Literal["promote", "rollback"]
    source: str
    target: str
    who: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class _Pointer:
    champion: str = BASE
    history: tuple[Move, ...] = ()


class Registry:
    """Versions and their champion in one folder. A lock lets one writer in at a time; readers never wait."""

    def __init__(self, folder: Path, disk: Disk | None = None) -> None:
        self.folder = folder
        self._disk = disk or Disk()

    @property
    def pointer(self) -> Path:
        """The file that is replaced whenever the champion changes, for watching it."""
        return self.folder / _POINTER

    def versions(self) -> tuple[ModelVersion, ...]:
        """Return every complete version, oldest first. Incomplete and damaged versions are skipped."""
        found = []
        for folder in (self.folder / _VERSIONS).glob("*"):
            if not folder.name.startswith("."):
                try:
                    found.append(self._read(folder.name))
                except RegistryError:
                    continue  # skip it here; `version(name)` raises with the reason
        return tuple(sorted(found, key=lambda version: (version.created, _natural(version.name))))

    def version(self, name: str) -> ModelVersion:
        """Return one complete version.

        Raises:
            RegistryError: no version has this name, or it is not complete.
        """
        if not _NAME.fullmatch(name) or not (self.folder / _VERSIONS / name).is_dir():
            known = ", ".join(version.name for version in self.versions()) or "none yet"
            raise RegistryError(f"there is no version {name!r} in {self.folder}; known versions: {known}")
        return self._read(name)

    def champion(self) -> ModelVersion | None:
        """Return the version to serve; None means the base checkpoint.

        Raises:
            RegistryError: the pointer cannot be read, or its version is damaged or was deleted.
        """
        name = self._read_pointer().champion
        return None if name == BASE else self.version(name)

    def champion_name(self) -> str:
        """Return the name in the pointer without checking that version; `base` for the base checkpoint."""
        return self._read_pointer().champion

    def history(self) -> tuple[Move, ...]:
        """Return every promotion and rollback, oldest first."""
        return self._read_pointer().history

    def earlier_champions(self) -> tuple[str, ...]:
        """Return the champions that successive rollbacks would restore, the next one first."""
        return tuple(reversed(_undo_stack(self.history())))

    def add(
        self,
        source: Path,
        kind: Kind,
        *,
        name: str | None = None,
        base: Base | None = None,
        data_version: str | None = None,
        config: Mapping[str, Any] | None = None,
        metrics: Mapping[str, Any] | None = None,
        parents: Sequence[str] = (),
    ) -> ModelVersion:
        """Copy a trained folder into the registry as a new version. The champion does not change.

        Args:
            source: a PEFT adapter folder or a complete checkpoint folder.
            kind: which of the two.
            name: lower-case letters, digits and `._-`; None: the next of `v1`, `v2`, ...
            base: the checkpoint that an adapter was trained on; required for adapters.
            data_version: the export version it was trained on.
            config: settings and facts of the training run.
            metrics: results of the training run.
            parents: versions it was trained from.

        Raises:
            RegistryError: the name is taken or invalid, `source` has no files, or an adapter has no base.
        """
        sources = sorted(path for path in source.rglob("*") if path.is_file())
        if not sources:
            raise RegistryError(f"expected a folder with a trained {kind} at {source}, found no files there")
        if kind == "adapter" and base is None:
            raise RegistryError(f"the adapter in {source} needs its base checkpoint: path and fingerprint")
        with self._writing():
            chosen = name or self._next_name()
            if not _NAME.fullmatch(chosen) or chosen == BASE:
                raise RegistryError(
                    f"{chosen!r} is not a valid version name; use at most 64 lower-case letters, digits, . _ and -"
                )
            if (self.folder / _VERSIONS / chosen).exists():
                raise RegistryError(f"there is a version {chosen!r} already; versions never change")
            return self._add(sources, source, chosen, ModelVersion(
                name=chosen, kind=kind, folder=self.folder / _VERSIONS / chosen,
                created=datetime.now(UTC).isoformat(timespec="microseconds"),
                base=base, data_version=data_version, config=dict(config or {}), metrics=dict(metrics or {}),
                parents=tuple(parents),
            ))  # fmt: skip

    def record_gate(self, name: str, verdict: Mapping[str, Any]) -> ModelVersion:
        """Store a verdict of the gate in a version.

        Raises:
            RegistryError: as `version`.
        """
        with self._writing():
            version = dataclasses.replace(self.version(name), gate=dict(verdict))
            self._disk.write(version.folder / _VERSION_FILE, _as_bytes(version.to_json()))
            return version

    def promote(self, name: str, *, who: str = "", why: str = "") -> ModelVersion | None:
        """Make a version the champion and return it; `base` means the base checkpoint and returns None.

        The verdict of the gate is not checked here; the caller decides.

        Raises:
            RegistryError: no version has this name, one of its files is damaged, or it is the champion already.
        """
        with self._writing():
            pointer = self._read_pointer()
            if name == pointer.champion:
                raise RegistryError(f"{name} is the champion already")
            version = None if name == BASE else self.verified(name)
            self._move(pointer, Move(_now(), "promote", pointer.champion, name, who, why))
            return version

    def rollback(self, *, who: str = "", why: str = "") -> ModelVersion | None:
        """Undo the last promotion that is still in effect and return the restored champion, None for the base.

        Raises:
            RegistryError: there is no promotion to undo, or the version to restore is missing or damaged.
        """
        with self._writing():
            pointer = self._read_pointer()
            stack = _undo_stack(pointer.history)
            if not stack:
                raise RegistryError(f"nothing to roll back: no promotion led to the champion {pointer.champion}")
            version = None if stack[-1] == BASE else self.verified(stack[-1])
            self._move(pointer, Move(_now(), "rollback", pointer.champion, stack[-1], who, why))
            return version

    def verified(self, name: str) -> ModelVersion:
        """Return a version after comparing the SHA-256 of each of its files.

        Raises:
            RegistryError: as `version`, or a file has changed since it was added.
        """
        version = self.version(name)
        for path, entry in version.files.items():
            if sha256_of(version.folder / path) != entry["sha256"]:
                raise RegistryError(f"{version.folder / path} has changed since {name} was added; train it again")
        return version

    @contextmanager
    def _writing(self) -> Iterator[None]:
        self._disk.make_folder(self.folder)
        self._disk.make_folder(self.folder / _VERSIONS)
        with locked(self.folder / _LOCK):
            yield

    def _add(self, sources: Sequence[Path], source: Path, name: str, version: ModelVersion) -> ModelVersion:
        versions = self.folder / _VERSIONS
        for leftover in versions.glob(f"{_STAGING}*"):  # its writer was killed: this process holds the lock
            shutil.rmtree(leftover)
        staging = versions / f"{_STAGING}{name}-{os.getpid()}"
        files = {}
        for path in sources:
            relative = Path(version.kind) / path.relative_to(source)
            self._disk.make_folder((staging / relative).parent)
            num_bytes, digest = self._disk.copy(path, staging / relative)
            files[relative.as_posix()] = {"bytes": num_bytes, "sha256": digest}
        complete = dataclasses.replace(version, files=files)
        self._disk.write_new(staging / _VERSION_FILE, _as_bytes(complete.to_json()))
        self._disk.publish(staging, version.folder)
        return complete

    def _move(self, pointer: _Pointer, move: Move) -> None:
        history = [dataclasses.asdict(each) for each in (*pointer.history, move)]
        self._disk.write(self.pointer, _as_bytes({"champion": move.target, "history": history}))

    def _read_pointer(self) -> _Pointer:
        try:
            data = json.loads(self.pointer.read_bytes())
            history = tuple(Move(**known_fields(Move, move)) for move in data.get("history") or ())
            return _Pointer(data.get("champion") or BASE, history)
        except FileNotFoundError:
            return _Pointer()
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise RegistryError(
                f"{self.pointer} cannot be read: {error}. Restore it from a backup, or delete it to serve the base "
                "checkpoint"
            ) from error

    def _read(self, name: str) -> ModelVersion:
        folder = self.folder / _VERSIONS / name
        try:
            data = json.loads((folder / _VERSION_FILE).read_bytes())
            schema_version = data.get("schema_version", SCHEMA_VERSION)
            version = _version_from_json(folder, data)
            torn = [path for path, entry in version.files.items() if (folder / path).stat().st_size != entry["bytes"]]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise RegistryError(f"version {name!r} in {self.folder} is not complete: {error}; add it again") from error
        if schema_version != SCHEMA_VERSION or version.name != name or torn or not version.files:
            raise RegistryError(
                f"version {name!r} in {self.folder} is not complete, or this release cannot read it: expected schema "
                f"version {SCHEMA_VERSION}, got {schema_version!r} of {version.name!r}; damaged files: {torn}; "
                "add it again"
            )
        return version

    def _next_name(self) -> str:
        taken = (re.fullmatch(r"v(\d+)", folder.name) for folder in (self.folder / _VERSIONS).glob("v*"))
        return f"v{1 + max((int(match.group(1)) for match in taken if match), default=0)}"


def _version_from_json(folder: Path, data: Mapping[str, Any]) -> ModelVersion:
    values = known_fields(ModelVersion, data)
    if values.get("base"):
        values["base"] = Base(**known_fields(Base, values["base"]))
    return ModelVersion(**{**values, "folder": folder, "parents": tuple(values.get("parents") or ())})


def _undo_stack(history: Sequence[Move]) -> list[str]:
    """Return the champions that rollbacks restore, the next one last."""
    stack: list[str] = []
    for move in history:
        if move.action == "promote":
            stack.append(move.source)
        elif stack:
            stack.pop()
    return stack


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _as_bytes(data: Any) -> bytes:
    return (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode()


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
