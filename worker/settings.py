"""Where a worker finds things and how much it may use, read once from the environment.

`QueueSettings` is the part that the backend shares: both sides must agree on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from job_queue.settings import QueueSettings
from job_queue.task_arms import Shares

_CHECKPOINTS = Path(__file__).resolve().parent.parent / "demo" / "checkpoints"


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything a worker process is told from outside.

    `image_allow_hosts` lists host names, addresses or networks (`10.0.0.0/8`) whose private or loopback
    addresses may be fetched. Label Studio's own address is always allowed.
    """

    redis_url: str = "redis://127.0.0.1:6379/0"
    label_studio_url: str | None = None
    label_studio_token: str | None = field(default=None, repr=False)
    model: Path = _CHECKPOINTS / "osprey-nano"
    sam: str = str(_CHECKPOINTS / "sam-nano")
    registry: Path | None = None  # whose champion is served instead of `model`
    base_set: Path | None = None  # an export version that no candidate may get worse on
    replay: Path | None = None  # a data config of old data that a fine-tune mixes in
    auto_promote: bool = False  # whether a candidate that passes the gate becomes the champion by itself
    device: str = "auto"
    threads: int | None = None  # of PyTorch on the CPU; None: half of the cores
    compile: bool = False  # of SAM's encoder, by torch.compile: minutes at the first image, faster ever after
    embedding_ttl_s: int = 3600  # of image embeddings in Redis, after their last use
    embeddings_max_bytes: int = 512 * 1024**2  # of all of them; sam-nano's has 256 KB, an official SAM's 2 MB
    cache_dir: Path = Path("~/.cache/osprey-label-studio")
    cache_max_bytes: int = 2 * 1024**3
    image_allow_hosts: tuple[str, ...] = ()
    image_max_bytes: int = 64 * 1024**2
    image_max_pixels: int = 120_000_000
    image_timeout_s: float = 15.0
    log_level: str = "INFO"
    exports: Path = Path("exports")  # versions of training data
    database_url: str = f"sqlite:///{Path.home()}/.local/share/osprey-label-studio/corrections.db"
    projects: tuple[int, ...] = ()  # whose corrections are collected; (): of every project that can be served
    reconcile_s: int = 300  # a webhook that was lost is made up for after this long
    reconcile_full_s: int = 3600  # the same for a task that was deleted
    shares: Shares = field(default_factory=Shares)
    finetune_after: int | None = None  # corrected regions since the last fine-tune that start one; None: none does
    finetune_cron: str | None = None  # when to fine-tune whatever is new, as "0 3 * * *"
    queue: QueueSettings = field(default_factory=QueueSettings)

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Self:
        """Read the `OSPREY_*` variables; a missing or empty one keeps its default.

        Raises:
            ValueError: a variable that does not parse; the message names it and what it should be.
        """
        default = cls()
        return cls(
            redis_url=_text(environ, "OSPREY_REDIS_URL") or default.redis_url,
            label_studio_url=_text(environ, "OSPREY_LABEL_STUDIO_URL"),
            label_studio_token=_text(environ, "OSPREY_LABEL_STUDIO_TOKEN"),
            model=Path(_text(environ, "OSPREY_MODEL") or default.model),
            sam=_text(environ, "OSPREY_SAM") or default.sam,
            registry=Path(registry) if (registry := _text(environ, "OSPREY_REGISTRY")) else None,
            base_set=Path(base_set) if (base_set := _text(environ, "OSPREY_BASE_SET")) else None,
            replay=Path(replay) if (replay := _text(environ, "OSPREY_REPLAY")) else None,
            auto_promote=_flag(environ, "OSPREY_AUTO_PROMOTE"),
            device=_text(environ, "OSPREY_DEVICE") or default.device,
            threads=_positive_int(environ, "OSPREY_THREADS", default.threads),
            compile=_flag(environ, "OSPREY_COMPILE"),
            embedding_ttl_s=_positive_int(environ, "OSPREY_EMBEDDING_TTL_S", None) or default.embedding_ttl_s,
            embeddings_max_bytes=_positive_int(environ, "OSPREY_EMBEDDINGS_MAX_BYTES", None)
            or default.embeddings_max_bytes,
            cache_dir=Path(_text(environ, "OSPREY_CACHE_DIR") or default.cache_dir).expanduser(),
            cache_max_bytes=_positive_int(environ, "OSPREY_CACHE_MAX_BYTES", default.cache_max_bytes)
            or default.cache_max_bytes,
            image_allow_hosts=tuple(
                host.strip() for host in environ.get("OSPREY_IMAGE_ALLOW_HOSTS", "").split(",") if host.strip()
            ),
            image_max_bytes=_positive_int(environ, "OSPREY_IMAGE_MAX_BYTES", None) or default.image_max_bytes,
            image_max_pixels=_positive_int(environ, "OSPREY_IMAGE_MAX_PIXELS", None) or default.image_max_pixels,
            log_level=(_text(environ, "OSPREY_LOG_LEVEL") or default.log_level).upper(),
            database_url=_text(environ, "OSPREY_DATABASE_URL") or default.database_url,
            projects=_numbers(environ, "OSPREY_PROJECTS"),
            reconcile_s=_positive_int(environ, "OSPREY_RECONCILE_S", None) or default.reconcile_s,
            reconcile_full_s=_positive_int(environ, "OSPREY_RECONCILE_FULL_S", None) or default.reconcile_full_s,
            shares=Shares.from_env(environ),
            finetune_after=_positive_int(environ, "OSPREY_FINETUNE_AFTER", None),
            finetune_cron=_text(environ, "OSPREY_FINETUNE_CRON"),
            exports=Path(_text(environ, "OSPREY_EXPORTS") or default.exports).expanduser(),
        )


def _text(environ: Mapping[str, str], name: str) -> str | None:
    return environ.get(name, "").strip() or None


def _flag(environ: Mapping[str, str], name: str) -> bool:
    text = (_text(environ, name) or "off").lower()
    if text not in ("on", "off"):
        raise ValueError(f"{name} must be on or off, got {text!r}")
    return text == "on"


def _numbers(environ: Mapping[str, str], name: str) -> tuple[int, ...]:
    parts = [part.strip() for part in environ.get(name, "").split(",") if part.strip()]
    if not all(part.isdecimal() for part in parts):
        raise ValueError(f"{name} must be project numbers with commas between them, got {environ[name]!r}")
    return tuple(int(part) for part in parts)


def _positive_int(environ: Mapping[str, str], name: str, default: int | None) -> int | None:
    text = _text(environ, name)
    if text is None:
        return default
    try:
        value = int(text.replace("_", ""))
    except ValueError:
        value = 0
    if value <= 0:
        raise ValueError(f"{name} must be a whole number above zero, got {text!r}")
    return value
