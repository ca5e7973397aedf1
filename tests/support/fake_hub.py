"""A local HTTP server that speaks a hub's protocol: listing, redirects to a store, ranges, dropped connections."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "c0ffee" * 6 + "c0ff"


@dataclass
class FakeHub:
    """The files that are served, and the failures.

    `drops` holds by file name after how many bytes each of the next answers ends. `announced` replaces contents in the
    listing, so that its checksums do not fit the files.
    """

    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    sam: dict[str, bytes] = field(default_factory=dict)
    drops: dict[str, list[int]] = field(default_factory=dict)
    announced: dict[str, bytes] = field(default_factory=dict)
    ignores_ranges: bool = False
    requests: list[tuple[str, str | None]] = field(default_factory=list)  # path, Range
    url: str = ""

    def ranges(self, name: str) -> list[str | None]:
        """Return the Range headers of the requests for this file."""
        return [range_ for path, range_ in self.requests if path.endswith("/" + name) and "/resolve/" not in path]

    def listing(self, repository: str) -> dict[str, Any]:
        """Return the answer of `/api/models/<repository>/revision/main?blobs=true`."""
        siblings: list[dict[str, Any]] = []
        for name, sent in self.repositories[repository].items():
            content = self.announced.get(name, sent)
            blob = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
            item: dict[str, Any] = {"rfilename": name, "size": len(content), "blobId": blob}
            if name.endswith(".bin"):
                item["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
            siblings.append(item)
        return {"id": repository, "sha": COMMIT, "siblings": siblings}


def _handler(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Keep test output quiet."""

        def do_GET(self) -> None:
            path, range_ = self.path.split("?")[0], self.headers.get("Range")
            hub.requests.append((path, range_))
            listing = re.fullmatch(r"/api/models/(.+)/revision/main", path)
            if listing and listing[1] in hub.repositories:
                self.answer(200, json.dumps(hub.listing(listing[1])).encode())
            elif match := re.fullmatch(rf"/(.+)/resolve/{COMMIT}/(.+)", path):
                self.answer(302, b"", Location=f"/store/{match[1]}/{match[2]}")
            elif match := re.fullmatch(r"/store/([^/]+/[^/]+)/(.+)", path):
                self.send_file(match[2], hub.repositories[match[1]][match[2]], range_)
            elif (name := path.removeprefix("/sam/")) in hub.sam:
                self.send_file(name, hub.sam[name], range_)
            else:
                self.answer(404, b"no such thing")

        def send_file(self, name: str, content: bytes, range_: str | None) -> None:
            start, status, headers = 0, 200, {}
            if range_ and not hub.ignores_ranges:
                start, status = int(range_.removeprefix("bytes=").rstrip("-")), 206
                if start >= len(content):
                    self.answer(416, b"")
                    return
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            drops = hub.drops.get(name)
            self.answer(status, content[start:], drops.pop(0) if drops else None, **headers)

        def answer(self, status: int, body: bytes, drop_after: int | None = None, **headers: str) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            for key, value in headers.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(body if drop_after is None else body[:drop_after])  # HTTP/1.0: then it closes

    return Handler


@contextmanager
def serving(hub: FakeHub) -> Iterator[FakeHub]:
    """Serve `hub` on a free local port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
