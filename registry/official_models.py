"""The published checkpoints by name: their files, addresses and checksums.

Osprey's files come from a Hugging Face hub, or a mirror with the same protocol. Their sizes and checksums are those
that the hub lists for one commit. The file names of SAM's checkpoints contain the first digits of their SHA-256.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from registry.downloads import DownloadFailed, RemoteFile

HUB = "https://huggingface.co"
OSPREY_REPOSITORIES = {
    "osprey-7b": "sunshine-lwt/Osprey-7b",
    "osprey-chat-7b": "sunshine-lwt/Osprey-Chat-7b",
    "osprey-7b-stage2": "sunshine-lwt/Osprey-7b-stage2",
}
SAM_FILES = {
    "sam-vit-b": "sam_vit_b_01ec64.pth",
    "sam-vit-l": "sam_vit_l_0b3195.pth",
    "sam-vit-h": "sam_vit_h_4b8939.pth",
}
NAMES = (*OSPREY_REPOSITORIES, *SAM_FILES)
_WANTED_SUFFIXES = {".bin", ".json", ".safetensors", ".model"}  # weights, configs, tokenizer


@dataclass(frozen=True, slots=True)
class Mirrors:
    """Where checkpoints are downloaded from; `offline` forbids downloads."""

    hub: str
    sam: str
    offline: bool

    @classmethod
    def from_env(cls, environ: Mapping[str, str], sam: str) -> Mirrors:
        """Read HF_ENDPOINT and HF_HUB_OFFLINE; `sam` is the setting OSPREY_SAM_MIRROR.

        Raises:
            ValueError: a mirror is not an http(s) address.
        """
        hub = environ.get("HF_ENDPOINT") or HUB
        for name, url in (("HF_ENDPOINT", hub), ("OSPREY_SAM_MIRROR", sam)):
            try:
                parsed = httpx.URL(url)
            except httpx.InvalidURL:
                parsed = httpx.URL("")
            if parsed.scheme not in {"http", "https"} or not parsed.host:
                raise ValueError(f"{name} is {url!r}; expected an address such as https://mirror.example")
        offline = environ.get("HF_HUB_OFFLINE", "").lower() in {"1", "true", "yes", "on"}
        return cls(hub.rstrip("/"), sam.rstrip("/"), offline)


def default_place(name: str, root: Path) -> Path:
    """Return the target folder of `name`: a subfolder of `root` for Osprey, `root` for SAM's single files."""
    return root / OSPREY_REPOSITORIES[name].split("/")[1] if name in OSPREY_REPOSITORIES else root


def files_of(client: httpx.Client, name: str, mirrors: Mirrors) -> list[RemoteFile]:
    """List the files of a published checkpoint, with checksums and the addresses of one commit.

    Raises:
        DownloadFailed: the name is unknown, there is no connection, or the answer is not that of a hub.
    """
    if name not in NAMES:
        raise DownloadFailed(f"unknown model {name!r}; known: {', '.join(NAMES)}")
    if mirrors.offline:
        raise DownloadFailed(f"HF_HUB_OFFLINE is set, so {name} is not downloaded; unset it, or copy the files by hand")
    if name in SAM_FILES:
        file = SAM_FILES[name]
        prefix = file.removesuffix(".pth").rsplit("_", 1)[1]
        return [RemoteFile(file, f"{mirrors.sam}/{file}", "sha256", prefix)]
    repository = OSPREY_REPOSITORIES[name]
    listing = _listing(client, f"{mirrors.hub}/api/models/{repository}/revision/main?blobs=true")
    try:
        base = f"{mirrors.hub}/{repository}/resolve/{listing['sha']}"
        wanted = [item for item in listing["siblings"] if Path(item["rfilename"]).suffix in _WANTED_SUFFIXES]
        files = [_remote_file(base, item) for item in wanted]
    except (KeyError, TypeError) as error:
        raise DownloadFailed(
            f"{mirrors.hub} did not list {repository} as a Hugging Face hub does (no {error}); check HF_ENDPOINT"
        ) from error
    if not files:
        raise DownloadFailed(f"{repository} on {mirrors.hub} lists no weights; check HF_ENDPOINT")
    return files


def _listing(client: httpx.Client, url: str) -> dict[str, Any]:
    try:
        response = client.get(url)
        response.raise_for_status()
        listing = response.json()
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        raise DownloadFailed(f"{url} answered {status}; check HF_ENDPOINT, or use another mirror") from error
    except httpx.RequestError as error:
        raise DownloadFailed(
            f"{url} cannot be reached: {error}. Offline? Check the connection, or set HF_ENDPOINT to a mirror"
        ) from error
    except ValueError as error:
        raise DownloadFailed(f"{url} did not answer with JSON; check HF_ENDPOINT") from error
    if not isinstance(listing, dict):
        raise DownloadFailed(f"{url} answered with a {type(listing).__name__}, expected an object; check HF_ENDPOINT")
    return listing


def _remote_file(base: str, item: dict[str, Any]) -> RemoteFile:
    name = item["rfilename"]
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise DownloadFailed(f"the hub lists a file {name!r} outside the checkpoint's folder; check HF_ENDPOINT")
    if lfs := item.get("lfs"):
        return RemoteFile(name, f"{base}/{name}", "sha256", lfs["sha256"], lfs["size"])
    return RemoteFile(name, f"{base}/{name}", "git", item["blobId"], item["size"])
