"""Fixtures: a correction store on SQLite and PostgreSQL. PostgreSQL needs its binaries to be installed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from learning.corrections.store import Store
from tests.support.label_studio_project import LabelStudioProject

PLACES = [*os.environ.get("PATH", "").split(os.pathsep), *map(str, Path("/usr/lib/postgresql").glob("*/bin"))]


def _program(name: str) -> str | None:
    return shutil.which(name, path=os.pathsep.join(PLACES))


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield the URL of a PostgreSQL server: a new one, or OSPREY_TEST_POSTGRES_URL (its schema osprey is dropped)."""
    given = os.environ.get("OSPREY_TEST_POSTGRES_URL")
    if given:
        yield given
        return
    initdb, postgres = _program("initdb"), _program("postgres")
    if initdb is None or postgres is None:
        pytest.skip("PostgreSQL's initdb and postgres are not installed (apt-get install postgresql)")
    folder = tmp_path_factory.mktemp("postgres")
    as_other: list[str] = []
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        if _program("setpriv") is None:
            pytest.skip("PostgreSQL does not run as root, and setpriv is not installed")
        as_other = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        for path in (folder, *folder.parents):
            if path.name.startswith("pytest-") or path.is_relative_to(tmp_path_factory.getbasetemp()):
                path.chmod(0o755)
        os.chown(folder, 65534, 65534)
    environ = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "HOME": str(folder)}
    data, socket = folder / "data", folder
    done = subprocess.run(
        [*as_other, initdb, "-D", str(data), "-U", "osprey", "-A", "trust", "-N", "-E", "UTF8"],
        env=environ, cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    log = (folder / "log").open("w")
    server = subprocess.Popen(
        [*as_other, postgres, "-D", str(data), "-k", str(socket), "-c", "listen_addresses=", "-c", "fsync=off"],
        env=environ, cwd=folder, stdout=log, stderr=subprocess.STDOUT,
    )  # fmt: skip
    url = f"postgresql+psycopg://osprey@/postgres?host={socket}"
    engine = create_engine(url)
    for attempt in range(100):
        try:
            with engine.connect():
                break
        except Exception:
            assert server.poll() is None, (folder / "log").read_text()
            assert attempt < 99, (folder / "log").read_text()
            time.sleep(0.1)
    engine.dispose()
    yield url
    server.send_signal(signal.SIGINT)  # does not wait for connections that a failed test left open
    server.wait(timeout=30)
    log.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of an empty database, once per kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/corrections.db"
    url = str(request.getfixturevalue("postgres_url"))
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA IF EXISTS osprey CASCADE"))
    engine.dispose()
    return url


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    """Yield an open, empty store."""
    with Store.open(database_url) as opened:
        yield opened


@pytest.fixture
def label_studio() -> Iterator[LabelStudioProject]:
    """Yield a fake Label Studio with an empty project 3."""
    server = LabelStudioProject()
    yield server
    server.close()
