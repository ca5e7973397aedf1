"""The settings of the backend, read once by `backend/main.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self

from job_queue.settings import Count, Positive, PositiveWhole, ProcessSettings, Switch, setting


class Settings(ProcessSettings):
    """The settings of a backend process. Times in seconds.

    Label Studio gives up on /health after 1 s and on /setup after 3 s; on /predict after 100 s, but a second
    click is merged with one that still waits, so a click is answered after about `wait_budget_s`.
    """

    describe_floor_s: ClassVar[float] = 0.3  # the description's least time, also when the mask used up the budget

    host: str = setting("127.0.0.1", "address to listen on", variable="OSPREY_BACKEND_HOST", make_up=False)
    port: PositiveWhole = setting(9090, "port to listen on", variable="OSPREY_BACKEND_PORT", make_up=False)
    user: str = setting("osprey", "user of basic authentication", variable="OSPREY_BACKEND_USER", make_up=False)
    # None: no authentication, only with OSPREY_BACKEND_AUTH=off.
    password: str | None = setting(
        None, "its password; without one the backend does not start",
        variable="OSPREY_BACKEND_PASSWORD", make_up=False, secret=True,
    )  # fmt: skip
    auth: Switch = setting(
        True, "`off`: serve without a password, only on a network that you alone use",
        variable="OSPREY_BACKEND_AUTH", make_up=False,
    )  # fmt: skip
    webhook_secret: str | None = setting(
        None, "what the header `X-Webhook-Secret` of webhooks must contain", make_up=False, secret=True
    )
    wait_budget_s: Positive = setting(1.2, "how long a click may wait for its texts, in seconds", compose=True)
    # Longer than wait_budget_s: an answer without a mask is useless, and a cold SAM is slow.
    mask_wait_s: Positive = setting(8.0, "how long a click may wait for its mask, in seconds")
    look_ahead: Count = setting(3, "how many of the next tasks are warmed when a task is opened; 0: none")
    model_version: str | None = setting(None, "answer only with this model version", shown="what the workers serve")
    session_ttl_s: PositiveWhole = setting(86400, "how long the backend remembers a task's regions, in seconds")
    threads: PositiveWhole = setting(32, "clicks answered at the same time", variable="OSPREY_BACKEND_THREADS")
    max_body_bytes: PositiveWhole = setting(
        256 * 1024**2, "larger requests are refused", variable="OSPREY_BACKEND_MAX_BODY_BYTES"
    )

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Self:
        """Read the variables; a missing or empty one keeps its default.

        Raises:
            ValueError: a value that cannot be used, or no password without `OSPREY_BACKEND_AUTH=off`.
        """
        settings = super().from_env(environ)
        if not settings.auth:
            return settings.model_copy(update={"password": None})
        if settings.password is None:
            raise ValueError(
                "OSPREY_BACKEND_PASSWORD is not set; give the backend a password and enter it in Label Studio's model "
                "connection, or set OSPREY_BACKEND_AUTH=off on a network that you alone use"
            )
        return settings

    @property
    def predict_deadline_s(self) -> float:
        """When a click is answered even if something hangs; its own waits end earlier."""
        return max(self.wait_budget_s, self.mask_wait_s) + 5.0
