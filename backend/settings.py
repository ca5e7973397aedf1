"""The settings of the backend, read once by `backend/main.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from job_queue.task_arms import Shares


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a backend process. Times in seconds.

    Label Studio gives up on /health after 1 s and on /setup after 3 s; on /predict after 100 s, but a second
    click is merged with one that still waits, so a click is answered after about `wait_budget_s`.
    """

    redis_url: str = "redis://127.0.0.1:6379/0"
    host: str = "127.0.0.1"
    port: int = 9090
    user: str = "osprey"
    password: str | None = field(default=None, repr=False)  # None: no auth, only with OSPREY_BACKEND_AUTH=off
    webhook_secret: str | None = field(default=None, repr=False)
    wait_budget_s: float = 1.2
    mask_wait_s: float = 8.0  # longer than wait_budget_s: an answer without a mask is useless, and a cold SAM is slow
    describe_floor_s: float = 0.3  # at least this long for the description, also when the mask used up the budget
    session_ttl_s: int = 24 * 3600
    model_version: str | None = None  # None: any version that the workers serve
    look_ahead: int = 3  # how many tasks after an opened one are warmed; 0: none
    max_body_bytes: int = 256 * 1024**2
    threads: int = 32
    log_level: str = "INFO"
    shares: Shares = field(default_factory=lambda: Shares(blind=0.0))

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Self:
        """Read the `OSPREY_*` variables; a missing or empty one keeps its default.

        Raises:
            ValueError: a variable that does not parse, or no password without `OSPREY_BACKEND_AUTH=off`.
        """
        default = cls()
        auth = _text(environ, "OSPREY_BACKEND_AUTH", "on").lower()
        if auth not in ("on", "off"):
            raise ValueError(f"OSPREY_BACKEND_AUTH must be on or off, got {auth!r}")
        password = _text(environ, "OSPREY_BACKEND_PASSWORD", "") or None
        if auth == "on" and password is None:
            raise ValueError(
                "OSPREY_BACKEND_PASSWORD is not set; give the backend a password and enter it in Label Studio's model "
                "connection, or set OSPREY_BACKEND_AUTH=off on a network that you alone use"
            )
        return cls(
            redis_url=_text(environ, "OSPREY_REDIS_URL", default.redis_url),
            host=_text(environ, "OSPREY_BACKEND_HOST", default.host),
            port=int(_number(environ, "OSPREY_BACKEND_PORT", default.port)),
            user=_text(environ, "OSPREY_BACKEND_USER", default.user),
            password=password if auth == "on" else None,
            webhook_secret=_text(environ, "OSPREY_WEBHOOK_SECRET", "") or None,
            wait_budget_s=_number(environ, "OSPREY_WAIT_BUDGET_S", default.wait_budget_s),
            mask_wait_s=_number(environ, "OSPREY_MASK_WAIT_S", default.mask_wait_s),
            session_ttl_s=int(_number(environ, "OSPREY_SESSION_TTL_S", default.session_ttl_s)),
            model_version=_text(environ, "OSPREY_MODEL_VERSION", "") or None,
            look_ahead=_count(environ, "OSPREY_LOOK_AHEAD", default.look_ahead),
            max_body_bytes=int(_number(environ, "OSPREY_BACKEND_MAX_BODY_BYTES", default.max_body_bytes)),
            threads=int(_number(environ, "OSPREY_BACKEND_THREADS", default.threads)),
            shares=Shares.from_env(environ),
            log_level=_text(environ, "OSPREY_LOG_LEVEL", default.log_level).upper(),
        )

    @property
    def predict_deadline_s(self) -> float:
        """When a click is answered even if something hangs; its own waits end earlier."""
        return max(self.wait_budget_s, self.mask_wait_s) + 5.0


def _text(environ: Mapping[str, str], name: str, default: str) -> str:
    return environ.get(name, "").strip() or default


def _count(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name, "").strip()
    if text and not text.isdecimal():
        raise ValueError(f"{name} must be a whole number, zero or more, got {text!r}")
    return int(text) if text else default


def _number(environ: Mapping[str, str], name: str, default: float) -> float:
    text = environ.get(name, "").strip()
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise ValueError(f"{name} must be a number above zero, got {text!r}")
    return value
