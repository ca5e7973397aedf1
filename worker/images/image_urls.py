"""URLs as task data holds them: checked, quoted, decoded, and shown without secrets."""

from __future__ import annotations

import urllib.parse
from base64 import b64decode

from job_queue.contracts import ImageRef
from job_queue.errors import ImageCorrupt, ImageUnavailable


def name_of(ref: ImageRef) -> str:
    """Return how an error text calls an image."""
    return f"image {public_url(ref.url)}{_of_task(ref)}"


def public_url(url: str) -> str:
    """Return a URL as it may be shown: without password, signature and embedded data."""
    if url.startswith("data:"):
        return "data: URL"
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError:
        return "(malformed address)"
    query = f"?{parts.query}" if parts.path.endswith("/data/local-files/") else ""
    host = parts.netloc.rpartition("@")[2]
    return (f"{parts.scheme}://{host}" if parts.scheme else "") + parts.path + query


def refuse_malformed(url: str, ref: ImageRef) -> None:
    """Check that Python can take a URL apart, unlike `http://[::1` and `http://host:port/`.

    Raises:
        ImageUnavailable: it cannot.
    """
    try:
        _ = urllib.parse.urlsplit(url).port
    except ValueError as error:
        raise ImageUnavailable(f"the image address{_of_task(ref)} is malformed: {error}") from error


def request_url(url: str) -> str:
    """Return a URL as it is requested: quoted, with an ASCII host and without user, password and fragment."""
    parts = urllib.parse.urlsplit(url)
    path = urllib.parse.quote(parts.path or "/", safe="/%:@!$&'()*+,;=~")
    query = urllib.parse.quote(parts.query, safe="/%:@!$&'()*+,;=~?")
    host = parts.netloc.rpartition("@")[2]
    if not host.isascii():
        host = host.encode("idna").decode()
    return urllib.parse.urlunsplit((parts.scheme, host, path, query, ""))


def decode_data_url(ref: ImageRef, max_bytes: int) -> bytes:
    """Return the bytes that a `data:` URL holds.

    Raises:
        ImageUnavailable: they are more than `max_bytes`.
        ImageCorrupt: the URL is malformed.
    """
    header, comma, payload = ref.url.partition(",")
    if not comma:
        raise ImageCorrupt(f"{name_of(ref)} has no comma, so it holds no data")
    if len(payload) > max_bytes * 4 // 3 + 4:
        raise ImageUnavailable(f"{name_of(ref)} is larger than {max_bytes} bytes; raise OSPREY_IMAGE_MAX_BYTES")
    if not header.endswith(";base64"):
        return urllib.parse.unquote_to_bytes(payload)
    try:
        return b64decode(urllib.parse.unquote(payload), validate=True)
    except ValueError as error:
        raise ImageCorrupt(f"{name_of(ref)} is not valid base64: {error}") from error


def _of_task(ref: ImageRef) -> str:
    return f" of task {ref.task_id}" if ref.task_id is not None else ""
