"""A task's image reference -> upright RGB pixels: the one place where images enter the workers.

Task data holds Label Studio's own paths, http(s) addresses, `data:` URLs and URIs of cloud storages (fetched through
Label Studio's presign route). Bytes, pixels and time have limits. Bytes are cached on disk, decoded images in memory.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from dataclasses import dataclass

from PIL import Image

from job_queue.contracts import ImageRef
from job_queue.errors import ImageCorrupt
from worker.images.decoding import decode_image
from worker.images.disk_cache import DiskCache
from worker.images.downloader import ImageDownloader
from worker.images.image_urls import decode_data_url, name_of
from worker.label_studio.api import LabelStudioApi
from worker.settings import Settings

_DECODED_BYTES = 512 * 1024**2


@dataclass(frozen=True, slots=True)
class ResolvedImage:
    """An upright RGB image and the hash of the bytes it came from."""

    image: Image.Image
    sha256: str


class ImageResolver:
    """Fetches, checks, decodes and caches images. One per worker process; its threads may share it."""

    def __init__(self, settings: Settings, decoded_bytes: int = _DECODED_BYTES) -> None:
        """`decoded_bytes` is the size of the cache of decoded images."""
        self._settings = settings
        self._downloader = ImageDownloader(settings)
        self._disk = DiskCache(settings.cache_dir / "images", settings.cache_max_bytes)
        self._decoded: OrderedDict[str, ResolvedImage] = OrderedDict()
        self._decoded_lock = threading.Lock()
        self._decoded_bytes = decoded_bytes

    @property
    def label_studio(self) -> LabelStudioApi | None:
        """The client of the Label Studio that the settings name."""
        return self._downloader.label_studio

    def close(self) -> None:
        """Close the connections."""
        self._downloader.close()

    def resolve(self, ref: ImageRef, image_wh: tuple[int, int] | None = None) -> ResolvedImage:
        """Return the image behind a reference.

        Args:
            ref: what the task's data holds.
            image_wh: the size that Label Studio showed; another size is an error, because clicks would be misplaced.

        Raises:
            ImageUnavailable: it cannot be fetched; the message names the reason and the next step.
            ImageCorrupt: what was fetched is not an image, or not the one that was shown.
        """
        resolved = self._cached(ref)
        if image_wh is not None and resolved.image.size != tuple(image_wh):
            self._forget(ref)  # the file may have been replaced since it was cached
            resolved = self._cached(ref)
        if image_wh is not None and resolved.image.size != tuple(image_wh):
            width, height = resolved.image.size
            raise ImageCorrupt(
                f"{name_of(ref)} is {width}x{height} pixels, but Label Studio showed {image_wh[0]}x{image_wh[1]}; "
                "the file has changed: reload the page"
            )
        return resolved

    def encoded(self, ref: ImageRef) -> bytes:
        """Return the bytes behind a reference as they were fetched, after a check that they are an image.

        Raises:
            ImageUnavailable, ImageCorrupt: as for `resolve`.
        """
        self._cached(ref)
        return self._bytes(ref)[0]

    def _cached(self, ref: ImageRef) -> ResolvedImage:
        with self._decoded_lock:
            resolved = self._decoded.get(ref.url)
            if resolved is not None:
                self._decoded.move_to_end(ref.url)
                return resolved
        resolved = self._load(ref)
        with self._decoded_lock:
            self._add(ref.url, resolved)
        return resolved

    def _forget(self, ref: ImageRef) -> None:
        with self._decoded_lock:
            self._decoded.pop(ref.url, None)
        if not ref.url.startswith("data:"):
            self._disk.remove(self._downloader.url_of(ref))

    def _load(self, ref: ImageRef) -> ResolvedImage:
        data, fetched_from = self._bytes(ref)
        image = decode_image(data, name_of(ref), self._settings.image_max_pixels)
        if fetched_from is not None:  # only what can be decoded is kept, so a repaired file is fetched again
            self._disk.put(fetched_from, data)
        return ResolvedImage(image, hashlib.sha256(data).hexdigest())

    def _bytes(self, ref: ImageRef) -> tuple[bytes, str | None]:
        """Return the bytes behind a reference, and the URL if they were fetched from there now."""
        if ref.url.startswith("data:"):
            return decode_data_url(ref, self._settings.image_max_bytes), None
        url = self._downloader.url_of(ref)
        on_disk = self._disk.get(url)
        return (on_disk, None) if on_disk is not None else (self._downloader.fetch(url, ref), url)

    def _add(self, url: str, resolved: ResolvedImage) -> None:
        self._decoded[url] = resolved
        used = sum(_num_bytes(each.image) for each in self._decoded.values())
        while used > self._decoded_bytes and len(self._decoded) > 1:
            _, oldest = self._decoded.popitem(last=False)
            used -= _num_bytes(oldest.image)


def _num_bytes(image: Image.Image) -> int:
    return image.width * image.height * 3
