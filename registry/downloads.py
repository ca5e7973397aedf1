"""One file over HTTP, resumable and verified: whole and right under its name, or not there at all.

What has arrived lies beside the target as `<name>.<checksum>.part` and is continued by the next call, in this
process or a later one. (huggingface_hub 2 throws a partial file away when its process ends.)
Used by `registry/official_models.py`.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import httpx

from job_queue.errors import OspreyError

_CHUNK_BYTES = 1 << 20
_ATTEMPTS = 5  # without a new byte between them
_RETRY_STATUS = {408, 425, 429, 500, 502, 503, 504}

log = logging.getLogger(__name__)


class DownloadFailed(OspreyError):
    """A file could not be fetched; the message says why, and whether another call continues it."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """Where a file is and how to know it arrived.

    Attributes:
        checksum: lower-case hex digits; for "sha256" a prefix of the digest will do, "git" is git's blob id (sha1).
        size: bytes; None: what the server says.
    """

    name: str
    url: str
    kind: Literal["sha256", "git"]
    checksum: str
    size: int | None = None


Progress = Callable[[int, int | None], None]  # (bytes there, bytes in all)


def fetch(
    client: httpx.Client,
    file: RemoteFile,
    folder: Path,
    *,
    on_progress: Progress | None = None,
    wait_s: float = 1.0,
) -> Path:
    """Bring `file` into `folder`; a right file that is there already is kept as it is.

    Args:
        wait_s: pause before the first repeated attempt; doubles with each one that brings nothing.

    Raises:
        DownloadFailed: offline, refused, truncated again and again, wrong checksum, disk full.
    """
    target, on_progress = folder / file.name, on_progress or (lambda *_: None)
    try:
        if target.is_file() and is_right(target, file):
            size = target.stat().st_size
            on_progress(size, size)
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f"{target.name}.{file.checksum[:12]}.part")
        _fill(client, file, part, on_progress, wait_s)
        if not is_right(part, file):
            size = part.stat().st_size
            part.unlink()
            raise DownloadFailed(
                f"{file.url} is damaged: expected {file.kind} {file.checksum}, got other content of {size} bytes. "
                "It was removed; run the command again, or use another mirror"
            )
        part.replace(target)
    except OSError as error:
        raise DownloadFailed(
            f"{target} cannot be written: {error}. Make room or choose another folder; "
            "what has arrived is kept and continued by the next call"
        ) from error
    return target


def is_right(path: Path, file: RemoteFile) -> bool:
    """Whether the file at `path` has the size and the checksum of `file`."""
    size = path.stat().st_size
    if file.size not in (None, size):
        return False
    digest = hashlib.sha256() if file.kind == "sha256" else hashlib.sha1(f"blob {size}\0".encode())
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest().startswith(file.checksum)


def _fill(client: httpx.Client, file: RemoteFile, part: Path, on_progress: Progress, wait_s: float) -> None:
    """Append to `part` until it is complete."""
    failures, most = 0, part.stat().st_size if part.exists() else 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            if file.size is not None and before >= file.size:
                return
            if _stream(client, file, part, before, on_progress):
                return
            problem = "the connection ended early"
        except httpx.HTTPStatusError as error:
            status = error.response.status_code
            if status not in _RETRY_STATUS:
                raise DownloadFailed(f"{file.url} answered {status}; check the name, or use another mirror") from error
            problem = f"the server answered {status}"
        except httpx.RequestError as error:
            problem = f"{type(error).__name__}: {error}"
        after = part.stat().st_size if part.exists() else 0
        failures = 0 if after > most else failures + 1
        most = max(most, after)
        if failures >= _ATTEMPTS:
            raise DownloadFailed(
                f"{file.url} cannot be fetched: {problem}. Offline? Check the connection, or name a mirror; "
                f"{after} bytes are kept in {part} and continued by the next call"
            )
        log.warning("%s: %s; continuing at byte %d", file.name, problem, after)
        time.sleep(wait_s * 2 ** max(failures - 1, 0))


def _stream(client: httpx.Client, file: RemoteFile, part: Path, start: int, on_progress: Progress) -> bool:
    """One request; whether the file is complete after it."""
    # identity: ranges count bytes of what is sent, and compressed bytes are not the file's.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with client.stream("GET", file.url, headers=headers) as response:
        if start and response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            return True  # nothing behind what is there: the checksum decides
        response.raise_for_status()
        content_range = response.headers.get("Content-Range", "")
        resumed = response.status_code == httpx.codes.PARTIAL_CONTENT and content_range.startswith(f"bytes {start}-")
        done = start if resumed else 0
        length = response.headers.get("Content-Length")
        announced = done + int(length) if length else None
        total = file.size if file.size is not None else announced
        if file.size is not None and announced not in (None, file.size):
            raise DownloadFailed(
                f"{file.url} should have {file.size} bytes, the server announces {announced}; use another mirror"
            )
        free = shutil.disk_usage(part.parent).free
        if total is not None and total - done > free:
            raise DownloadFailed(
                f"{part.parent} has {free} bytes free and {file.name} needs {total - done} more; "
                "make room or choose another folder"
            )
        on_progress(done, total)
        with part.open("ab" if resumed else "wb") as stream:
            for chunk in response.iter_raw():  # as it arrives: with a size, a drop would lose the unfinished chunk
                stream.write(chunk)
                done += len(chunk)
                on_progress(done, total)
    return total is None or done >= total
