"""A task's image reference -> upright RGB pixels: the one place where images enter the workers.

Understands what task data holds: Label Studio's own paths, http(s) addresses, `data:` URLs and cloud
storage URIs (through Label Studio's presign route). Guarded by `worker.guarded_http`, bounded in bytes,
pixels and time, cached on disk and decoded in memory.
"""

from __future__ import annotations

import hashlib
import threading
import urllib.parse
from base64 import b64decode
from collections import OrderedDict
from dataclasses import dataclass

import httpcore
from PIL import Image

from job_queue.contracts import ImageRef
from job_queue.errors import ImageCorrupt, ImageUnavailable
from worker.guarded_http import AddressRefusedError, AllowedHosts, GuardedHttp, Response, ResponseTooLargeError
from worker.images.decoding import decode_image
from worker.images.disk_cache import DiskCache
from worker.label_studio.credentials import LabelStudio, origin_of
from worker.settings import Settings

_CLOUD_SCHEMES = ("s3", "gs", "azure-blob", "azure_spi")
_MAX_REDIRECTS = 5
_DECODED_BYTES = 512 * 1024**2


@dataclass(frozen=True, slots=True)
class ResolvedImage:
    """An upright RGB image and the hash of the bytes it came from."""

    image: Image.Image
    sha256: str


class ImageResolver:
    """Fetches, checks, decodes and keeps images. One per worker process; its threads may share it."""

    def __init__(self, settings: Settings, decoded_bytes: int = _DECODED_BYTES) -> None:
        self._settings = settings
        origins = []
        if settings.label_studio_url:
            _, host, port = origin_of(settings.label_studio_url)
            origins.append((host, port or 80))
        self._http = GuardedHttp(AllowedHosts(settings.image_allow_hosts, origins), settings.image_timeout_s)
        self.label_studio = (
            LabelStudio(settings.label_studio_url, settings.label_studio_token, self._http)
            if settings.label_studio_url
            else None
        )
        self._disk = DiskCache(settings.cache_dir / "images", settings.cache_max_bytes)
        self._decoded: OrderedDict[str, ResolvedImage] = OrderedDict()
        self._decoded_lock = threading.Lock()
        self._decoded_bytes = decoded_bytes

    def close(self) -> None:
        """Close kept connections."""
        self._http.close()

    def resolve(self, ref: ImageRef, image_wh: tuple[int, int] | None = None) -> ResolvedImage:
        """The image behind a reference.

        Args:
            ref: what the task's data holds.
            image_wh: the size that Label Studio showed; another size is an error, because clicks would be misplaced.

        Raises:
            ImageUnavailable: it cannot be fetched; the message says why and what to do.
            ImageCorrupt: what was fetched is not an image, or not the one that was shown.
        """
        resolved = self._kept(ref)
        if image_wh is not None and resolved.image.size != tuple(image_wh):
            self._forget(ref)  # the file may have been replaced since it was cached
            resolved = self._kept(ref)
        if image_wh is not None and resolved.image.size != tuple(image_wh):
            width, height = resolved.image.size
            raise ImageCorrupt(
                f"{_name(ref)} is {width}x{height} pixels, but Label Studio showed {image_wh[0]}x{image_wh[1]}; "
                "the file has changed: reload the page"
            )
        return resolved

    def encoded(self, ref: ImageRef) -> bytes:
        """The bytes behind a reference as they were fetched, after a check that they are an image.

        Raises:
            ImageUnavailable, ImageCorrupt: as for `resolve`.
        """
        if ref.url.startswith("data:"):
            return _decode_data_url(ref, self._settings.image_max_bytes)
        self._kept(ref)
        url = self._absolute(ref)
        data = self._disk.get(url)
        return data if data is not None else self._fetch(url, ref)

    def _kept(self, ref: ImageRef) -> ResolvedImage:
        with self._decoded_lock:
            resolved = self._decoded.get(ref.url)
            if resolved is not None:
                self._decoded.move_to_end(ref.url)
                return resolved
        resolved = self._load(ref)
        with self._decoded_lock:
            self._keep(ref.url, resolved)
        return resolved

    def _forget(self, ref: ImageRef) -> None:
        with self._decoded_lock:
            self._decoded.pop(ref.url, None)
        if not ref.url.startswith("data:"):
            self._disk.remove(self._absolute(ref))

    def _load(self, ref: ImageRef) -> ResolvedImage:
        if ref.url.startswith("data:"):
            data = _decode_data_url(ref, self._settings.image_max_bytes)
            return ResolvedImage(self._decode(data, ref), hashlib.sha256(data).hexdigest())
        url = self._absolute(ref)
        cached = self._disk.get(url)
        data = cached if cached is not None else self._fetch(url, ref)
        image = self._decode(data, ref)
        if cached is None:  # only what can be decoded is kept, so a repaired file is fetched again
            self._disk.put(url, data)
        return ResolvedImage(image, hashlib.sha256(data).hexdigest())

    def _decode(self, data: bytes, ref: ImageRef) -> Image.Image:
        return decode_image(data, _name(ref), self._settings.image_max_pixels)

    def _keep(self, url: str, resolved: ResolvedImage) -> None:
        self._decoded[url] = resolved
        used = sum(_num_bytes(kept.image) for kept in self._decoded.values())
        while used > self._decoded_bytes and len(self._decoded) > 1:
            _, oldest = self._decoded.popitem(last=False)
            used -= _num_bytes(oldest.image)

    def _absolute(self, ref: ImageRef) -> str:
        scheme = ref.url.partition(":")[0]
        if scheme in ("http", "https"):
            _refuse_malformed(ref.url, ref)
            return ref.url
        if ref.url.startswith("/") and not ref.url.startswith("//"):
            return self._needs_label_studio(ref).absolute(ref.url)
        if scheme in _CLOUD_SCHEMES:
            if ref.task_id is None:
                raise ImageUnavailable(
                    f"{_name(ref)} is in a cloud storage, which Label Studio opens only for a known task, and the "
                    "request names no task"
                )
            return self._needs_label_studio(ref).presign(ref.url, ref.task_id)
        raise ImageUnavailable(
            f"{_name(ref)} is not an address a worker can fetch; use an upload, Label Studio local files, http(s), "
            "a data: URL or a cloud storage"
        )

    def _needs_label_studio(self, ref: ImageRef) -> LabelStudio:
        if self.label_studio is None:
            raise ImageUnavailable(
                f"{_name(ref)} is kept by Label Studio, and the worker does not know its address; set "
                "OSPREY_LABEL_STUDIO_URL and OSPREY_LABEL_STUDIO_TOKEN"
            )
        return self.label_studio

    def _fetch(self, url: str, ref: ImageRef) -> bytes:
        for _ in range(_MAX_REDIRECTS + 1):
            response = self._get(url, ref)
            target = response.headers.get("location")
            if response.status not in (301, 302, 303, 307, 308) or target is None:
                break
            _refuse_malformed(target, ref)
            url = urllib.parse.urljoin(url, target)
            if self._is_own(url) and urllib.parse.urlsplit(url).path.rstrip("/").endswith("/user/login"):
                raise ImageUnavailable(self._refused(ref, "asks to log in"))
            if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
                raise ImageUnavailable(f"{_name(ref)} redirects to {_public(url)}, which is not http(s)")
        else:
            raise ImageUnavailable(f"{_name(ref)} redirects more than {_MAX_REDIRECTS} times")
        if response.status == 200:
            return response.body
        if response.status in (401, 403) and self._is_own(url):
            raise ImageUnavailable(self._refused(ref, f"answers HTTP {response.status}"))
        if response.status in (404, 410):
            raise ImageUnavailable(
                f"{_name(ref)} is gone (HTTP {response.status} from {_public(url)}); restore the file"
            )
        raise ImageUnavailable(f"{_name(ref)} cannot be fetched: HTTP {response.status} from {_public(url)}")

    def _get(self, url: str, ref: ImageRef) -> Response:
        try:
            response = self._request(url, fresh_token=False)
            if response.status == 401 and self._is_own(url):
                response = self._request(url, fresh_token=True)
        except AddressRefusedError as error:
            raise ImageUnavailable(f"{_name(ref)} is refused: {error}") from error
        except ResponseTooLargeError as error:
            raise ImageUnavailable(
                f"{_name(ref)} has {error}, the limit; make it smaller or raise OSPREY_IMAGE_MAX_BYTES"
            ) from error
        except httpcore.TimeoutException as error:
            raise ImageUnavailable(
                f"{_name(ref)} did not come from {_public(url)} within {self._settings.image_timeout_s:.0f} s; "
                "check that the server is up"
            ) from error
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.UnsupportedProtocol) as error:
            raise ImageUnavailable(f"{_name(ref)} cannot be fetched from {_public(url)}: {error}") from error
        return response

    def _request(self, url: str, *, fresh_token: bool) -> Response:
        own = self.label_studio if self._is_own(url) else None
        headers = own.headers(fresh=fresh_token) if own else {}
        return self._http.request("GET", _without_user(url), headers=headers, max_bytes=self._settings.image_max_bytes)

    def _is_own(self, url: str) -> bool:
        return self.label_studio is not None and self.label_studio.is_own(url)

    def _refused(self, ref: ImageRef, what: str) -> str:
        return (
            f"{_name(ref)} is refused: Label Studio {what}; check that OSPREY_LABEL_STUDIO_TOKEN is a valid personal "
            "access token (or an enabled legacy token) of a user who may see the project"
        )


def _refuse_malformed(url: str, ref: ImageRef) -> None:
    """Addresses that Python itself cannot take apart (`http://[::1`, `http://host:port/`)."""
    try:
        _ = urllib.parse.urlsplit(url).port
    except ValueError as error:
        raise ImageUnavailable(f"the image address{_of_task(ref)} is malformed: {error}") from error


def _name(ref: ImageRef) -> str:
    return f"image {_public(ref.url)}{_of_task(ref)}"


def _of_task(ref: ImageRef) -> str:
    return f" of task {ref.task_id}" if ref.task_id is not None else ""


def _public(url: str) -> str:
    """A URL as it may be shown: no password, no signature, no megabytes of data."""
    if url.startswith("data:"):
        return "data: URL"
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError:
        return "(malformed address)"
    query = f"?{parts.query}" if parts.path.endswith("/data/local-files/") else ""
    host = parts.netloc.rpartition("@")[2]
    return (f"{parts.scheme}://{host}" if parts.scheme else "") + parts.path + query


def _without_user(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    path = urllib.parse.quote(parts.path or "/", safe="/%:@!$&'()*+,;=~")
    query = urllib.parse.quote(parts.query, safe="/%:@!$&'()*+,;=~?")
    host = parts.netloc.rpartition("@")[2].encode("idna").decode() if not parts.netloc.isascii() else parts.netloc
    return urllib.parse.urlunsplit((parts.scheme, host.rpartition("@")[2], path, query, ""))


def _decode_data_url(ref: ImageRef, max_bytes: int) -> bytes:
    header, comma, payload = ref.url.partition(",")
    if not comma:
        raise ImageCorrupt(f"{_name(ref)} has no comma, so it holds no data")
    if len(payload) > max_bytes * 4 // 3 + 4:
        raise ImageUnavailable(f"{_name(ref)} is larger than {max_bytes} bytes; raise OSPREY_IMAGE_MAX_BYTES")
    if not header.endswith(";base64"):
        return urllib.parse.unquote_to_bytes(payload)
    try:
        return b64decode(urllib.parse.unquote(payload), validate=True)
    except ValueError as error:
        raise ImageCorrupt(f"{_name(ref)} is not valid base64: {error}") from error


def _num_bytes(image: Image.Image) -> int:
    return image.width * image.height * 3
