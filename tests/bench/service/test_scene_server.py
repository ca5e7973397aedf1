"""Claims about the picture server: it serves lossless pictures by seed, and nothing else."""

from __future__ import annotations

import io

import httpx
import numpy as np
from PIL import Image

from bench.service.scene_server import SceneServer
from demo.scenes import make_scene


def test_serves_a_scene_without_loss_and_nothing_else() -> None:
    with SceneServer() as server, httpx.Client(trust_env=False) as client:
        answer = client.get(server.url(4))
        again = client.get(server.url(4, visit="second"))
        missing = client.get(server.url(4).replace("scene-4", "../secret"))
    assert answer.headers["content-type"] == "image/png"
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(answer.content))), np.asarray(make_scene(4).image))
    assert again.content == answer.content
    assert missing.status_code == 404
