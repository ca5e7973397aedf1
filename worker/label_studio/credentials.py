"""Tokens of Label Studio and the `Authorization` header that each kind leads to.

Label Studio never accepts a personal access token (a JWT) as a header: it must be exchanged for an access token, which
is valid for 300 s. A legacy token is sent as it is.
"""

from __future__ import annotations

import base64
import binascii
import json
import threading
import time
from collections.abc import Callable
from typing import Literal

_ACCESS_LIFE_S = 300.0
_MARGIN_S = 60.0

TokenKind = Literal["no token", "a legacy token", "an access token", "a personal access token"]


class Credentials:
    """One token and the access token that it was last exchanged for. Threads may share it."""

    def __init__(self, token: str | None, exchange: Callable[[str], str]) -> None:
        """`exchange` asks Label Studio for an access token; its errors pass through `header`."""
        self.kind = kind_of(token)
        self._token = token or ""
        self._exchange = exchange
        self._lock = threading.Lock()
        self._access = ""
        self._access_until_s = 0.0  # on the monotonic clock

    def header(self, *, fresh: bool = False) -> dict[str, str]:
        """Return the `Authorization` header, or no header without a token.

        Args:
            fresh: exchange the token even if the last access token should still be valid.
        """
        match self.kind:
            case "no token":
                return {}
            case "a legacy token":
                return {"Authorization": f"Token {self._token}"}
            case "an access token":
                return {"Authorization": f"Bearer {self._token}"}
        with self._lock:
            if fresh or time.monotonic() >= self._access_until_s:
                self._access = self._exchange(self._token)
                self._access_until_s = time.monotonic() + _ACCESS_LIFE_S - _MARGIN_S
            return {"Authorization": f"Bearer {self._access}"}


def kind_of(token: str | None) -> TokenKind:
    """Return which kind a token is. Only JWTs have three parts with JSON in the second one."""
    if not token:
        return "no token"
    pieces = token.split(".")
    if len(pieces) != 3:
        return "a legacy token"
    try:
        claims = json.loads(base64.urlsafe_b64decode(pieces[1] + "=" * (-len(pieces[1]) % 4)))
    except (binascii.Error, ValueError):
        return "a legacy token"
    return "an access token" if claims.get("token_type") == "access" else "a personal access token"
