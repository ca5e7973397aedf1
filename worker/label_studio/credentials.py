"""Label Studio's address and credentials, as a worker uses them.

A personal access token (a JWT) is never accepted as a header: it is exchanged for an access token that
lives 300 s. A legacy token is sent as it is. Either goes to Label Studio's own origin and nowhere else.
"""

from __future__ import annotations

import base64
import binascii
import json
import threading
import time
from urllib.parse import urlsplit

import httpcore

from job_queue.errors import ImageUnavailable
from worker.guarded_http import GuardedHttp, Response, ResponseTooLargeError

_ACCESS_LIFE_S = 300.0
_MARGIN_S = 60.0
_DEFAULT_PORTS = {"http": 80, "https": 443}


class LabelStudio:
    """The configured Label Studio server: which URLs are its own, and what authorizes a request to it."""

    def __init__(self, base_url: str, token: str | None, http: GuardedHttp) -> None:
        """`base_url` as the worker reaches it, with a path when it is served below one."""
        self._base_url = base_url.rstrip("/")
        self._token = token
        self._http = http
        self._lock = threading.Lock()
        self._access: tuple[str, float] | None = None  # token, monotonic time until which it is used

    def is_own(self, url: str) -> bool:
        """Whether `url` has exactly Label Studio's scheme, host and port."""
        return origin_of(url) == origin_of(self._base_url)

    def absolute(self, path: str) -> str:
        """The URL of a path that task data holds, such as `/data/upload/1/a.png`."""
        base = urlsplit(self._base_url)
        if base.path and path.startswith(base.path + "/"):
            return f"{base.scheme}://{base.netloc}{path}"
        return self._base_url + path

    def presign(self, uri: str, task_id: int) -> str:
        """The URL at which Label Studio redirects to an object of a cloud storage (`s3://`, `gs://`, ...)."""
        encoded = base64.urlsafe_b64encode(uri.encode()).decode()
        return f"{self._base_url}/tasks/{task_id}/presign/?fileuri={encoded}"

    def get(self, path: str, *, max_bytes: int) -> Response:
        """A GET of a path of its own API, with authorization; an access token that has ended is exchanged once.

        Raises:
            ImageUnavailable: Label Studio refuses the token.
            httpcore.NetworkError, ...: as `GuardedHttp.request`.
        """
        url = self._base_url + path
        response = self._http.request("GET", url, headers=self.headers(), max_bytes=max_bytes)
        if response.status == 401:
            response = self._http.request("GET", url, headers=self.headers(fresh=True), max_bytes=max_bytes)
        return response

    def headers(self, *, fresh: bool = False) -> dict[str, str]:
        """The `Authorization` header, or nothing without a token.

        Args:
            fresh: exchange again even when a cached access token should still be good.

        Raises:
            ImageUnavailable: Label Studio refuses the token or cannot be reached.
        """
        if self._token is None:
            return {}
        kind = _jwt_kind(self._token)
        if kind is None:
            return {"Authorization": f"Token {self._token}"}
        if kind == "access":
            return {"Authorization": f"Bearer {self._token}"}
        with self._lock:
            if fresh or self._access is None or time.monotonic() >= self._access[1]:
                self._access = (self._exchange(), time.monotonic() + _ACCESS_LIFE_S - _MARGIN_S)
            return {"Authorization": f"Bearer {self._access[0]}"}

    def _exchange(self) -> str:
        try:
            response = self._http.request(
                "POST",
                f"{self._base_url}/api/token/refresh/",
                headers={"Content-Type": "application/json"},
                body=json.dumps({"refresh": self._token}).encode(),
                max_bytes=65_536,
            )
        except (
            httpcore.TimeoutException,
            httpcore.NetworkError,
            httpcore.ProtocolError,
            ResponseTooLargeError,
        ) as error:
            raise ImageUnavailable(
                f"Label Studio at {self._base_url} does not answer ({type(error).__name__}: {error}); "
                "check OSPREY_LABEL_STUDIO_URL"
            ) from error
        if response.status != 200:
            raise ImageUnavailable(
                f"Label Studio refuses the personal access token (HTTP {response.status}); create a new one under "
                "Account & Settings and put it into OSPREY_LABEL_STUDIO_TOKEN"
            )
        return str(json.loads(response.body)["access"])


def origin_of(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port of a URL, with the scheme's default port filled in."""
    parts = urlsplit(url)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or _DEFAULT_PORTS.get(parts.scheme)


def _jwt_kind(token: str) -> str | None:
    """ "refresh" for a personal access token, "access" for an access token, None for a legacy token."""
    pieces = token.split(".")
    if len(pieces) != 3:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(pieces[1] + "=" * (-len(pieces[1]) % 4)))
    except (binascii.Error, ValueError):
        return None
    return "access" if claims.get("token_type") == "access" else "refresh"
