"""Download one file over HTTP, resumable and verified: under its name it is complete and correct, or absent.

The bytes that have arrived are kept beside the target as `<name>.<checksum>.part`. The next call continues there, in
this process or a later one. (huggingface_hub 2 deletes a partial file when its process ends.)
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
_ATTEMPTS = 5  # in a row that bring no new byte
_RETRY_STATUS = {408, 425, 429, 500, 502, 503, 504}

log = logging.getLogger(__name__)


class DownloadFailed(OspreyError):
    """A file could not be downloaded. The message says why, and whether another call continues."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """Address and checksum of a file.

    Attributes:
        name: path below the target folder.
        url: where it is downloaded from.
        kind: how `checksum` is computed; "git" is git's blob id (SHA-1).
        checksum: lower-case hexadecimal digits; for "sha256" a prefix of the digest is enough.
        size: in bytes; None: use the size that the server announces.
    """

    name: str
    url: str
    kind: Literal["sha256", "git"]
    checksum: str
    size: int | None = None


OnBytes = Callable[[int, int | None], None]  # (bytes that have arrived, bytes in total or None)


def fetch(
    client: httpx.Client,
    file: RemoteFile,
    folder: Path,
    *,
    on_progress: OnBytes | None = None,
    wait_s: float = 1.0,
) -> Path:
    """Download `file` into `folder` and return its path. A correct file that exists already is kept.

    Args:
        client: the HTTP client.
        file: what to download.
        folder: the target folder; it is created.
        on_progress: called with the bytes that have arrived and the total.
        wait_s: pause before the first repeated attempt; it doubles with each attempt that brings no new byte.

    Raises:
        DownloadFailed: no connection, refused, truncated repeatedly, wrong checksum, or disk full.
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
                "The file was removed; run the command again, or use another mirror"
            )
        part.replace(target)
    except OSError as error:
        raise DownloadFailed(
            f"{target} cannot be written: {error}. Make room or choose another folder; "
            "the bytes that have arrived are kept, and the next call continues there"
        ) from error
    return target


def is_right(path: Path, file: RemoteFile) -> bool:
    """Return whether the file at `path` has the size and the checksum of `file`."""
    size = path.stat().st_size
    if file.size not in (None, size):
        return False
    digest = hashlib.sha256() if file.kind == "sha256" else hashlib.sha1(f"blob {size}\0".encode())
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest().startswith(file.checksum)


def _fill(client: httpx.Client, file: RemoteFile, part: Path, on_progress: OnBytes, wait_s: float) -> None:
    """Append to `part` until the file is complete."""
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
                f"{file.url} cannot be downloaded: {problem}. Offline? Check the connection, or use a mirror; "
                f"{after} bytes are kept in {part}, and the next call continues there"
            )
        log.warning("%s: %s; continuing at byte %d", file.name, problem, after)
        time.sleep(wait_s * 2 ** max(failures - 1, 0))


def _stream(client: httpx.Client, file: RemoteFile, part: Path, start: int, on_progress: OnBytes) -> bool:
    """Send one request and return whether the file is complete after it."""
    # Not compressed: a range counts the bytes that are sent, which must be those of the file.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with client.stream("GET", file.url, headers=headers) as response:
        if start and response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            return True  # the server has no further bytes: the checksum decides
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
            for chunk in response.iter_raw():  # without a chunk size: a lost connection would lose the unfinished chunk
                stream.write(chunk)
                done += len(chunk)
                on_progress(done, total)
    return total is None or done >= total
