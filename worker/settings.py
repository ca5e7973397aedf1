"""The settings of a worker: addresses, folders and limits. A worker or a command reads them once, when it starts."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from job_queue.settings import Names, Positive, PositiveWhole, ProcessSettings, QueueSettings, Switch, UserPath, setting

_CHECKPOINTS = Path(__file__).resolve().parent.parent / "demo" / "checkpoints"


class Settings(ProcessSettings):
    """The settings of a worker process and of the commands that do the same work."""

    queue: ClassVar[QueueSettings] = QueueSettings()

    label_studio_url: str | None = setting(None, "address of Label Studio for workers and commands", make_up=False)
    label_studio_token: str | None = setting(None, "personal access token or legacy token", make_up=False, secret=True)
    model: UserPath = setting(
        _CHECKPOINTS / "osprey-nano", "Osprey checkpoint folder", shown="`demo/checkpoints/osprey-nano`", compose=True
    )
    sam: str = setting(
        str(_CHECKPOINTS / "sam-nano"), "SAM checkpoint folder, or an official `.pth` file",
        shown="`demo/checkpoints/sam-nano`", compose=True,
    )  # fmt: skip
    registry: UserPath | None = setting(
        None, "folder of trained versions; its champion is served instead of `OSPREY_MODEL`", compose=True
    )
    device: str = setting("auto", "`auto`, `cpu`, `cuda` or `cuda:1`", compose=True)
    threads: PositiveWhole | None = setting(None, "CPU threads of one worker", shown="half of the cores")
    compile: Switch = setting(
        False, "`on`: run SAM's encoder through torch.compile (the first image then takes minutes)"
    )
    sam_mirror: str = setting(
        "https://dl.fbaipublicfiles.com/segment_anything",
        "address from which `osprey models pull` downloads SAM's `.pth` files",
        make_up=False,
    )  # fmt: skip
    # Label Studio's own address is always allowed.
    image_allow_hosts: Names = setting(
        (), "hosts, addresses or networks (`10.0.0.0/8`) with private addresses that may serve images, comma separated",
        compose=True,
    )  # fmt: skip
    image_max_bytes: PositiveWhole = setting(64 * 1024**2, "largest accepted image file, in bytes")
    image_max_pixels: PositiveWhole = setting(120_000_000, "largest accepted image, in pixels")
    image_timeout_s: Positive = setting(15.0, "longest download of an image, in seconds")
    cache_dir: UserPath = setting(
        Path.home() / ".cache" / "osprey-label-studio", "folder in which workers keep downloaded images",
        shown="`~/.cache/osprey-label-studio`",
    )  # fmt: skip
    cache_max_bytes: PositiveWhole = setting(2 * 1024**3, "largest size of `OSPREY_CACHE_DIR`, in bytes")
    # An embedding takes 256 KB with sam-nano and 2 MB with an official SAM.
    embeddings_max_bytes: PositiveWhole = setting(
        512 * 1024**2, "largest total size of the image embeddings that workers share through Redis, in bytes"
    )
    embedding_ttl_s: PositiveWhole = setting(3600, "seconds until an unused embedding is removed")
