"""Label Studio's address: which URLs are its own, and how what task data holds becomes a URL."""

from __future__ import annotations

import base64
from urllib.parse import urlsplit

_DEFAULT_PORTS = {"http": 80, "https": 443}


class LabelStudioAddress:
    """Where a worker reaches Label Studio."""

    def __init__(self, base_url: str) -> None:
        """`base_url` includes the path if Label Studio is served below one."""
        self.base_url = base_url.rstrip("/")

    def is_own(self, url: str) -> bool:
        """Return whether `url` has exactly Label Studio's scheme, host and port."""
        return origin_of(url) == origin_of(self.base_url)

    def absolute(self, path: str) -> str:
        """Return the URL of a path that task data holds, such as `/data/upload/1/a.png`."""
        base = urlsplit(self.base_url)
        if base.path and path.startswith(base.path + "/"):
            return f"{base.scheme}://{base.netloc}{path}"
        return self.base_url + path

    def presign(self, uri: str, task_id: int) -> str:
        """Return the URL at which Label Studio redirects to an object of a cloud storage (`s3://`, `gs://`, ...)."""
        encoded = base64.urlsafe_b64encode(uri.encode()).decode()
        return f"{self.base_url}/tasks/{task_id}/presign/?fileuri={encoded}"


def origin_of(url: str) -> tuple[str, str, int | None]:
    """Return scheme, host and port of a URL; a port that is not given is the scheme's default port."""
    parts = urlsplit(url)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or _DEFAULT_PORTS.get(parts.scheme)
