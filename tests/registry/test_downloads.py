"""Claims about downloads: they resume, are verified, and leave no broken file under the final name."""

from __future__ import annotations

import hashlib
import random
import shutil
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from registry.downloads import DownloadFailed, RemoteFile, fetch
from tests.support.fake_hub import FakeHub, serving

CONTENT = random.Random(0).randbytes(300_000)
NAME = "sam_vit_b.pth"


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with serving(FakeHub(sam={NAME: CONTENT})) as running:
        yield running


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with httpx.Client(follow_redirects=True, timeout=5) as opened:
        yield opened


def remote(hub: FakeHub, *, size: int | None = len(CONTENT), content: bytes = CONTENT) -> RemoteFile:
    return RemoteFile(NAME, f"{hub.url}/sam/{NAME}", "sha256", hashlib.sha256(content).hexdigest(), size)


@pytest.mark.parametrize("size", [None, len(CONTENT)])
def test_a_dropped_connection_is_continued_where_it_ended(hub, client, tmp_path, size):
    """After two lost connections there were three requests, each for the missing bytes."""
    hub.drops[NAME] = [100_000, 50_000]
    path = fetch(client, remote(hub, size=size), tmp_path, wait_s=0)
    assert path.read_bytes() == CONTENT
    assert hub.ranges(NAME) == [None, "bytes=100000-", "bytes=150000-"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_later_call_continues_what_an_earlier_one_left(hub, client, tmp_path):
    """After five fruitless attempts the bytes are kept, and the next call requests only the rest."""
    hub.drops[NAME] = [100_000, 0, 0, 0, 0, 0]
    with pytest.raises(DownloadFailed, match="100000 bytes are kept"):
        fetch(client, remote(hub), tmp_path, wait_s=0)
    assert not (tmp_path / NAME).exists()
    assert fetch(client, remote(hub), tmp_path, wait_s=0).read_bytes() == CONTENT
    assert hub.ranges(NAME)[-1] == "bytes=100000-"


def test_a_server_without_ranges_starts_over(hub, client, tmp_path):
    """A 200 response to a range request replaces the partial file."""
    hub.ignores_ranges, hub.drops[NAME] = True, [100_000]
    assert fetch(client, remote(hub), tmp_path, wait_s=0).read_bytes() == CONTENT


def test_wrong_content_never_gets_the_final_name(hub, client, tmp_path):
    """A file with the right size and a wrong checksum is an error, and its bytes are removed."""
    with pytest.raises(DownloadFailed, match="is damaged"):
        fetch(client, remote(hub, content=bytes(len(CONTENT))), tmp_path, wait_s=0)
    assert list(tmp_path.iterdir()) == []


def test_another_size_is_refused_before_a_byte_is_written(hub, client, tmp_path):
    """The size that the server announces must be the listed one."""
    with pytest.raises(DownloadFailed, match="announces 300000"):
        fetch(client, remote(hub, size=400_000), tmp_path, wait_s=0)
    assert list(tmp_path.iterdir()) == []


def test_a_complete_file_is_kept_and_a_damaged_one_replaced(hub, client, tmp_path):
    """A correct file is not requested again; a damaged one is downloaded again."""
    (tmp_path / NAME).write_bytes(CONTENT)
    fetch(client, remote(hub), tmp_path)
    assert hub.requests == []
    (tmp_path / NAME).write_bytes(CONTENT[:-1])
    assert fetch(client, remote(hub), tmp_path).read_bytes() == CONTENT


def test_a_complete_partial_file_of_unknown_size_is_only_renamed(hub, client, tmp_path):
    """If a download was killed before the rename, the server's 416 response completes it."""
    file = remote(hub, size=None)
    (tmp_path / f"{NAME}.{file.checksum[:12]}.part").write_bytes(CONTENT)
    assert fetch(client, file, tmp_path, wait_s=0).read_bytes() == CONTENT


def test_no_room_is_said_before_the_download(hub, client, tmp_path, monkeypatch):
    """Missing disk space is an error before the download."""
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 9, 1))
    with pytest.raises(DownloadFailed, match=r"1 bytes free .* needs 300000 more"):
        fetch(client, remote(hub), tmp_path, wait_s=0)
    assert not (tmp_path / NAME).exists()


def test_a_disk_that_fills_up_keeps_what_arrived(hub, client, tmp_path, monkeypatch):
    """A full disk is an error with advice, and the bytes that have arrived stay."""
    part = tmp_path / f"{NAME}.{remote(hub).checksum[:12]}.part"
    opened = Path.open

    def full(path: Path, mode: str = "r", *args, **kwargs):
        if path == part and mode == "ab":
            raise OSError(28, "No space left on device")
        return opened(path, mode, *args, **kwargs)

    part.write_bytes(CONTENT[:1000])
    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(DownloadFailed, match="No space left"):
        fetch(client, remote(hub), tmp_path, wait_s=0)
    assert part.read_bytes() == CONTENT[:1000]


def test_offline_and_not_found_say_what_to_do(hub, client, tmp_path):
    """A refused connection suggests a mirror; a 404 response is not tried again."""
    unreachable = RemoteFile(NAME, "http://127.0.0.1:9/x", "sha256", "00")
    with pytest.raises(DownloadFailed, match=r"Offline\?"):
        fetch(client, unreachable, tmp_path, wait_s=0)
    missing = RemoteFile("y.pth", f"{hub.url}/sam/y.pth", "sha256", "00")
    with pytest.raises(DownloadFailed, match="answered 404"):
        fetch(client, missing, tmp_path, wait_s=0)
    assert len(hub.requests) == 1
