"""A small HTTP server that answers as Label Studio does: token exchange, uploads, presign, log-in redirect."""

from __future__ import annotations

import base64
import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def make_jwt(token_type: str) -> str:
    """Return a token in the format of Label Studio's, with an invalid signature, which no test checks."""
    parts = [json.dumps(part).encode() for part in ({"alg": "HS256"}, {"token_type": token_type})]
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts) + ".c2ln"


PERSONAL_ACCESS_TOKEN = make_jwt("refresh")


@dataclass
class Reply:
    """The answer of a path."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    needs_token: bool = False
    delay_s: float = 0.0


class FakeLabelStudio:
    """A server that answers with `replies` by path and counts requests and token exchanges."""

    def __init__(self) -> None:
        self.replies: dict[str, Reply] = {}
        self.seen: list[tuple[str, str | None]] = []  # path, Authorization
        self.exchanges = 0
        self.valid_access: str | None = None
        self.legacy_token: str | None = None
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                owner.answer_get(self)

            def do_POST(self) -> None:
                owner.answer_post(self)

            def do_DELETE(self) -> None:
                owner.answer_delete(self)

            def log_message(self, *args: Any) -> None:
                """Keep test output quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer_get(self, request: BaseHTTPRequestHandler) -> None:
        authorization = request.headers.get("Authorization")
        self.seen.append((request.path, authorization))
        reply = self.replies.get(request.path, Reply(404, b"not found"))
        allowed = {f"Bearer {self.valid_access}", f"Token {self.legacy_token}"}
        if reply.needs_token and authorization not in allowed:
            reply = Reply(401, b"no")
        time.sleep(reply.delay_s)
        _send(request, reply)

    def answer_post(self, request: BaseHTTPRequestHandler) -> None:
        body = json.loads(request.rfile.read(int(request.headers["Content-Length"])))
        if request.path == "/api/token/refresh/" and body.get("refresh") == PERSONAL_ACCESS_TOKEN:
            self.exchanges += 1
            self.valid_access = f"access-{self.exchanges}"
            _send(request, Reply(200, json.dumps({"access": self.valid_access}).encode()))
        else:
            _send(request, Reply(401, b'{"detail": "Token is invalid or expired"}'))

    def answer_delete(self, request: BaseHTTPRequestHandler) -> None:
        _send(request, Reply(404, b"not found"))


def _send(request: BaseHTTPRequestHandler, reply: Reply) -> None:
    request.send_response(reply.status)
    for name, value in reply.headers.items():
        request.send_header(name, value)
    request.send_header("Content-Length", str(len(reply.body)))
    request.end_headers()
    request.wfile.write(reply.body)
