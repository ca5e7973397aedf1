"""The model registry: a folder per version, one pointer to the champion, and who moved it when and why.

    champion.json            the champion's name and the history, in one file, so that they cannot disagree
    versions/NAME/           version.json, and adapter/ (PEFT) or checkpoint/ (a complete Osprey folder)

A version appears complete or not at all; the pointer names a complete version or, being absent or null, the base
checkpoint (OSPREY_MODEL). No torch here: everything that looks at versions may import this.

Neighbours: `registry/atomic_writes.py` does the writing, `worker/runtime.py` serves the champion,
`learning/gate/gate.py` fills `gate`, `cli/registry.py` is the command line.
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
from registry.atomic_writes import Disk, locked, sha256_of

Kind = Literal["adapter", "checkpoint"]

BASE = "base"  # the name of OSPREY_MODEL beside the versions
SCHEMA_VERSION = 1
_VERSIONS, _POINTER, _LOCK, _VERSION_FILE, _STAGING = "versions", "champion.json", "lock", "version.json", ".adding-"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


class RegistryError(OspreyError):
    """The registry cannot do what was asked, or a file of it is damaged; the message says which and what to do."""


@dataclass(frozen=True, slots=True)
class Base:
    """The checkpoint an adapter belongs on: a folder with its fingerprint, or a version."""

    path: str
    fingerprint: str
    version: str | None = None  # a registered version of kind "checkpoint" instead of `path`


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One complete version. `folder` is its directory, `files` maps relative paths to size and SHA-256."""

    name: str
    kind: Kind
    folder: Path
    created: str
    base: Base | None = None
    data_version: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    parents: tuple[str, ...] = ()
    gate: dict[str, Any] | None = None
    files: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def weights(self) -> Path:
        """The adapter's or checkpoint's folder."""
        return self.folder / self.kind

    @property
    def model_version(self) -> str:
        """What predictions carry: the name, and twelve digits of the content."""
        content = sorted((path, entry["sha256"]) for path, entry in self.files.items())
        return f"{self.name}@{_digest(content)[:12]}"

    def base_folders(self) -> tuple[Path, ...]:
        """Where an adapter's base checkpoint may be; its fingerprint decides."""
        if self.base is None:
            return ()
        return (
            Path(self.base.path)
            if self.base.version is None
            else self.folder.parent / self.base.version / "checkpoint",
        )

    def to_json(self) -> dict[str, Any]:
        """What version.json holds."""
        data = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in ("folder", "base")}
        base = dataclasses.asdict(self.base) if self.base else None
        return {"schema_version": SCHEMA_VERSION, **data, "parents": list(self.parents), "base": base}


@dataclass(frozen=True, slots=True)
class Move:
    """One move of the champion pointer. `source` and `target` are names of versions, `base` for OSPREY_MODEL."""

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
    """Versions and their champion in one folder. Writers exclude each other; readers never wait."""

    def __init__(self, folder: Path, disk: Disk | None = None) -> None:
        self.folder = folder
        self._disk = disk or Disk()

    @property
    def pointer(self) -> Path:
        """The file to watch: it is replaced whenever the champion changes."""
        return self.folder / _POINTER

    def versions(self) -> tuple[ModelVersion, ...]:
        """Every complete version, oldest first. One that is torn or damaged is not listed."""
        found = []
        for folder in (self.folder / _VERSIONS).glob("*"):
            if not folder.name.startswith("."):
                try:
                    found.append(self._read(folder.name))
                except RegistryError:
                    continue  # `version(NAME)` says what is wrong with it
        return tuple(sorted(found, key=lambda version: (version.created, _natural(version.name))))

    def version(self, name: str) -> ModelVersion:
        """One complete version.

        Raises:
            RegistryError: there is none of that name, or it is not complete.
        """
        if not _NAME.fullmatch(name) or not (self.folder / _VERSIONS / name).is_dir():
            known = ", ".join(version.name for version in self.versions()) or "none yet"
            raise RegistryError(f"there is no version {name!r} in {self.folder}; there are: {known}")
        return self._read(name)

    def champion(self) -> ModelVersion | None:
        """The version to serve; None for the base checkpoint.

        Raises:
            RegistryError: the pointer cannot be read, or its version was damaged or deleted by hand.
        """
        name = self._read_pointer().champion
        return None if name == BASE else self.version(name)

    def champion_name(self) -> str:
        """What the pointer says, whether that version is there or not; `base` for the base checkpoint."""
        return self._read_pointer().champion

    def history(self) -> tuple[Move, ...]:
        """Every promotion and rollback, oldest first."""
        return self._read_pointer().history

    def earlier_champions(self) -> tuple[str, ...]:
        """What `rollback` goes back to, nearest first; the last is where it all began."""
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
        """Copy a trained folder into the registry as a new version; serving does not change.

        Args:
            source: a PEFT adapter folder or a complete checkpoint folder.
            kind: which of the two.
            name: lower-case letters, digits and `._-`; None: the next `v1`, `v2`, ...
            base: what an adapter belongs on.
            data_version: the export it was trained on.
            config: of the training run.
            metrics: of the training run.
            parents: versions it was trained from.

        Raises:
            RegistryError: the name is taken or not allowed, the source is empty, or an adapter has no base.
        """
        sources = sorted(path for path in source.rglob("*") if path.is_file())
        if not sources:
            raise RegistryError(f"expected a folder with a trained {kind} at {source}, found no files there")
        if kind == "adapter" and base is None:
            raise RegistryError(f"the adapter in {source} needs its base checkpoint: path and fingerprint")
        with self._writing():
            chosen = name or self._next_name()
            if not _NAME.fullmatch(chosen) or chosen == BASE:
                raise RegistryError(f"{chosen!r} is no name for a version; use lower-case letters, digits, . _ and -")
            if (self.folder / _VERSIONS / chosen).exists():
                raise RegistryError(f"there is a version {chosen!r} already; versions never change")
            return self._add(sources, source, chosen, ModelVersion(
                name=chosen, kind=kind, folder=self.folder / _VERSIONS / chosen,
                created=datetime.now(UTC).isoformat(timespec="microseconds"),
                base=base, data_version=data_version, config=dict(config or {}), metrics=dict(metrics or {}),
                parents=tuple(parents),
            ))  # fmt: skip

    def record_gate(self, name: str, verdict: Mapping[str, Any]) -> ModelVersion:
        """Write a gate's verdict into a version.

        Raises:
            RegistryError: as `version`.
        """
        with self._writing():
            version = dataclasses.replace(self.version(name), gate=dict(verdict))
            self._disk.write(version.folder / _VERSION_FILE, _as_bytes(version.to_json()))
            return version

    def promote(self, name: str, *, who: str = "", why: str = "") -> ModelVersion | None:
        """Make a version the champion (`base`: go back to the base checkpoint); the new champion.

        Whether the gate passed is the caller's question, see `cli/registry.py`.

        Raises:
            RegistryError: no such version, a file of it is damaged, or it is the champion already.
        """
        with self._writing():
            pointer = self._read_pointer()
            if name == pointer.champion:
                raise RegistryError(f"{name} is the champion already")
            version = None if name == BASE else self.verified(name)
            self._move(pointer, Move(_now(), "promote", pointer.champion, name, who, why))
            return version

    def rollback(self, *, who: str = "", why: str = "") -> ModelVersion | None:
        """Undo the last promotion that is not undone yet; the champion from before, None for the base.

        Raises:
            RegistryError: there is nothing to undo, or the version from before is gone or damaged.
        """
        with self._writing():
            pointer = self._read_pointer()
            stack = _undo_stack(pointer.history)
            if not stack:
                raise RegistryError(f"nothing to roll back: {pointer.champion} serves, and no promotion came before it")
            version = None if stack[-1] == BASE else self.verified(stack[-1])
            self._move(pointer, Move(_now(), "rollback", pointer.champion, stack[-1], who, why))
            return version

    def verified(self, name: str) -> ModelVersion:
        """A version whose every byte is as it was added.

        Raises:
            RegistryError: as `version`, or a file has changed.
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
        for leftover in versions.glob(f"{_STAGING}*"):  # whoever made it has died: we hold the lock
            shutil.rmtree(leftover)
        staging = versions / f"{_STAGING}{name}-{os.getpid()}"
        files = {}
        for path in sources:
            relative = Path(version.kind) / path.relative_to(source)
            self._disk.make_folder((staging / relative).parent)
            num_bytes, digest = self._disk.copy(path, staging / relative)
            files[relative.as_posix()] = {"bytes": num_bytes, "sha256": digest}
        for folder in sorted({(staging / path).parent for path in files}):
            self._disk.sync_folder(folder)
        complete = dataclasses.replace(version, files=files)
        self._disk.write(staging / _VERSION_FILE, _as_bytes(complete.to_json()))
        self._disk.rename(staging, version.folder)
        return complete

    def _move(self, pointer: _Pointer, move: Move) -> None:
        history = [dataclasses.asdict(each) for each in (*pointer.history, move)]
        self._disk.write(self.pointer, _as_bytes({"champion": move.target, "history": history}))

    def _read_pointer(self) -> _Pointer:
        try:
            data = json.loads(self.pointer.read_bytes())
            return _Pointer(data["champion"] or BASE, tuple(Move(**move) for move in data["history"]))
        except FileNotFoundError:
            return _Pointer()
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RegistryError(
                f"{self.pointer} cannot be read: {error}; changed by hand? Delete it to serve the base checkpoint"
            ) from error

    def _read(self, name: str) -> ModelVersion:
        folder = self.folder / _VERSIONS / name
        try:
            data = json.loads((folder / _VERSION_FILE).read_bytes())
            schema_version = data.pop("schema_version")
            base = Base(**data.pop("base")) if data["base"] else data.pop("base")
            version = ModelVersion(folder=folder, base=base, **{**data, "parents": tuple(data["parents"])})
            torn = [path for path, entry in version.files.items() if (folder / path).stat().st_size != entry["bytes"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RegistryError(f"version {name!r} in {self.folder} is not complete: {error}; add it again") from error
        if schema_version != SCHEMA_VERSION or version.name != name or torn or not version.files:
            raise RegistryError(
                f"version {name!r} in {self.folder} is not complete or not of this release: expected schema version "
                f"{SCHEMA_VERSION}, got {schema_version!r} of {version.name!r}; damaged files: {torn}; add it again"
            )
        return version

    def _next_name(self) -> str:
        taken = (re.fullmatch(r"v(\d+)", folder.name) for folder in (self.folder / _VERSIONS).glob("v*"))
        return f"v{1 + max((int(match.group(1)) for match in taken if match), default=0)}"


def _undo_stack(history: Sequence[Move]) -> list[str]:
    """Champions that rollbacks lead to, the nearest last."""
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
