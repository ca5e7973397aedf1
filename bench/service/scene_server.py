"""Serve pictures of the demo world by seed, for workers that fetch a task's image."""

from __future__ import annotations

import functools
import io
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

from demo.scenes import make_scene

_PATH = re.compile(r"/(?:\w+/)?scene-(\d{1,12})(?:-(\d{2,4})x(\d{2,4}))?\.png")


class SceneServer:
    """`http://127.0.0.1:PORT/scene-SEED.png` (or `scene-SEED-1920x1080.png`) on a free port while the block runs."""

    def __init__(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _SceneHandler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def url(self, seed: int, visit: str = "", image_wh: tuple[int, int] | None = None) -> str:
        """Return the address of a scene. Another `visit` gives another address, which no cache contains."""
        folder, size = f"{visit}/" if visit else "", f"-{image_wh[0]}x{image_wh[1]}" if image_wh else ""
        return f"http://127.0.0.1:{self._server.server_address[1]}/{folder}scene-{seed}{size}.png"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@functools.lru_cache(maxsize=64)
def scene_png(seed: int, image_wh: tuple[int, int] | None = None) -> bytes:
    """Return the scene's picture as a PNG file, by default in the scene's own size."""
    with io.BytesIO() as file:
        (make_scene(seed, image_wh) if image_wh else make_scene(seed)).image.save(file, "PNG", compress_level=1)
        return file.getvalue()


class _SceneHandler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        """Send a scene, or 404."""
        match = _PATH.fullmatch(self.path)
        size = (int(match[2]), int(match[3])) if match and match[2] else None
        body = scene_png(int(match[1]), size) if match else b"no such scene"
        self.send_response(200 if match else 404)
        self.send_header("Content-Type", "image/png" if match else "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Log nothing, because the terminal shows a progress bar."""
