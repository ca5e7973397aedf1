"""An image reference -> its URL, and the bytes behind that URL.

Label Studio's token goes to Label Studio's own origin only. Every other address passes the guard of
`worker/guarded_http.py`, redirects included.
"""

from __future__ import annotations

import urllib.parse

from job_queue.contracts import ImageRef
from job_queue.errors import ImageUnavailable, LabelStudioFailed
from worker.guarded_http import AllowedHosts, GuardedHttp, RequestFailed, Response
from worker.images.image_urls import name_of, public_url, refuse_malformed, request_url
from worker.label_studio.address import origin_of
from worker.label_studio.api import LabelStudioApi
from worker.settings import Settings

_CLOUD_SCHEMES = ("s3", "gs", "azure-blob", "azure_spi")
_REDIRECTS = (301, 302, 303, 307, 308)
_MAX_REDIRECTS = 5


class ImageDownloader:
    """Fetches encoded images. Threads may share it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.label_studio: LabelStudioApi | None = None
        origins = []
        if settings.label_studio_url:
            self.label_studio = LabelStudioApi(
                settings.label_studio_url, settings.label_studio_token, timeout_s=settings.image_timeout_s
            )
            _, host, port = origin_of(settings.label_studio_url)
            origins.append((host, port or 80))
        self._http = GuardedHttp(AllowedHosts(settings.image_allow_hosts, origins), settings.image_timeout_s)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()
        if self.label_studio is not None:
            self.label_studio.close()

    def url_of(self, ref: ImageRef) -> str:
        """Return the http(s) URL of an image that is not in a `data:` URL.

        Raises:
            ImageUnavailable: there is none, or the settings name no Label Studio that keeps it.
        """
        scheme = ref.url.partition(":")[0]
        if scheme in ("http", "https"):
            refuse_malformed(ref.url, ref)
            return ref.url
        if ref.url.startswith("/") and not ref.url.startswith("//"):
            return self._required_label_studio(ref).address.absolute(ref.url)
        if scheme in _CLOUD_SCHEMES:
            if ref.task_id is None:
                raise ImageUnavailable(
                    f"{name_of(ref)} is in a cloud storage, which Label Studio opens only for a known task, and the "
                    "request names no task"
                )
            return self._required_label_studio(ref).address.presign(ref.url, ref.task_id)
        raise ImageUnavailable(
            f"{name_of(ref)} is not an address that a worker can fetch; use an upload, Label Studio local files, "
            "http(s), a data: URL or a cloud storage"
        )

    def fetch(self, url: str, ref: ImageRef) -> bytes:
        """Return the bytes behind a URL, after at most five redirects.

        Raises:
            ImageUnavailable: they cannot be fetched; the message names the reason and the next step.
        """
        for _ in range(_MAX_REDIRECTS + 1):
            response = self._get(url, ref)
            target = response.headers.get("location")
            if response.status not in _REDIRECTS or target is None:
                return self._body(response, url, ref)
            url = self._redirected(url, target, ref)
        raise ImageUnavailable(f"{name_of(ref)} redirects more than {_MAX_REDIRECTS} times")

    def _redirected(self, url: str, target: str, ref: ImageRef) -> str:
        refuse_malformed(target, ref)
        url = urllib.parse.urljoin(url, target)
        parts = urllib.parse.urlsplit(url)
        if self._is_own(url) and parts.path.rstrip("/").endswith("/user/login"):
            raise ImageUnavailable(_refused(ref, "asks to log in"))
        if parts.scheme not in ("http", "https"):
            raise ImageUnavailable(f"{name_of(ref)} redirects to {public_url(url)}, which is not http(s)")
        return url

    def _body(self, response: Response, url: str, ref: ImageRef) -> bytes:
        if response.status == 200:
            return response.body
        if response.status in (401, 403) and self._is_own(url):
            raise ImageUnavailable(_refused(ref, f"answers HTTP {response.status}"))
        if response.status in (404, 410):
            raise ImageUnavailable(
                f"{name_of(ref)} is gone (HTTP {response.status} from {public_url(url)}); restore the file"
            )
        raise ImageUnavailable(f"{name_of(ref)} cannot be fetched: HTTP {response.status} from {public_url(url)}")

    def _get(self, url: str, ref: ImageRef) -> Response:
        try:
            response = self._get_once(url, fresh_token=False)
            if response.status == 401 and self._is_own(url):
                response = self._get_once(url, fresh_token=True)
        except RequestFailed as error:
            raise ImageUnavailable(f"{name_of(ref)} cannot be fetched from {public_url(url)}: {error}") from error
        except LabelStudioFailed as error:
            raise ImageUnavailable(f"{name_of(ref)} cannot be fetched: {error}") from error
        return response

    def _get_once(self, url: str, *, fresh_token: bool) -> Response:
        own = self.label_studio if self._is_own(url) else None
        headers = own.authorization(fresh=fresh_token) if own else {}
        return self._http.get(request_url(url), headers=headers, max_bytes=self._settings.image_max_bytes)

    def _is_own(self, url: str) -> bool:
        return self.label_studio is not None and self.label_studio.address.is_own(url)

    def _required_label_studio(self, ref: ImageRef) -> LabelStudioApi:
        if self.label_studio is None:
            raise ImageUnavailable(
                f"{name_of(ref)} is kept by Label Studio, and the worker does not know its address; set "
                "OSPREY_LABEL_STUDIO_URL and OSPREY_LABEL_STUDIO_TOKEN"
            )
        return self.label_studio


def _refused(ref: ImageRef, reason: str) -> str:
    return (
        f"{name_of(ref)} is refused: Label Studio {reason}; check that OSPREY_LABEL_STUDIO_TOKEN is a valid personal "
        "access token (or an enabled legacy token) of a user who may see the project"
    )
