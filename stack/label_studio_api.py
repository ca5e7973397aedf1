"""Label Studio's HTTP API, as much as it takes to set up a project: log in, make a token, call.

Neighbours: `sample_project.py` calls it; `up.py` makes the workers' token with it.
"""

from __future__ import annotations

import time
from typing import Any, Self

import httpx

from stack.errors import StackError

ACCESS_LIFETIME_S = 240.0  # Label Studio's access tokens live 300 s
TIMEOUT_S = 60.0


class LabelStudioApi:
    """A client that exchanges a personal access token for short-lived access tokens."""

    def __init__(self, url: str, token: str) -> None:
        self._token = token
        self._access_until = 0.0
        # Proxies of the environment are for the outside world, Label Studio is next door.
        self._client = httpx.Client(base_url=url, timeout=TIMEOUT_S, trust_env=False)

    def call(self, method: str, path: str, **arguments: Any) -> Any:
        """The decoded answer of one call.

        Raises:
            StackError: any answer outside 2xx, with Label Studio's own words.
        """
        if time.monotonic() > self._access_until:
            self._client.headers["Authorization"] = f"Bearer {exchange(self._client, self._token)}"
            self._access_until = time.monotonic() + ACCESS_LIFETIME_S
        return _checked(self._client.request(method, path, **arguments))

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def __enter__(self) -> Self:
        """Usable in a `with` statement, which closes the connections."""
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def token_works(url: str, token: str) -> bool:
    """Whether Label Studio still exchanges this personal access token."""
    if not token:
        return False
    with httpx.Client(base_url=url, timeout=TIMEOUT_S, trust_env=False) as client:
        return client.post("/api/token/refresh/", json={"refresh": token}).status_code == 200


def make_token(url: str, email: str, password: str) -> str:
    """Log in as a browser does and make a personal access token; one that existed before is revoked.

    Raises:
        StackError: the login is refused, or the token is.
    """
    with httpx.Client(base_url=url, timeout=TIMEOUT_S, trust_env=False, headers={"Referer": url}) as client:
        client.get("/user/login/")
        form: dict[str, str | None] = {"email": email, "password": password}
        form["csrfmiddlewaretoken"] = client.cookies.get("csrftoken")
        if client.post("/user/login/", data=form).status_code != 302:
            raise StackError(
                f"Label Studio at {url} refuses the login {email}; if its password was changed in the page, "
                "put the new one into secrets.json of the state folder"
            )
        client.headers["X-CSRFToken"] = client.cookies.get("csrftoken") or ""
        # One valid token per user: Label Studio answers 409 to a second one.
        for old in _checked(client.get("/api/token/")):
            _checked(client.post("/api/token/blacklist/", json={"refresh": old["token"]}))
        return str(_checked(client.post("/api/token/"))["token"])


def exchange(client: httpx.Client, token: str) -> str:
    """A fresh access token."""
    return str(_checked(client.post("/api/token/refresh/", json={"refresh": token}))["access"])


def _checked(answer: httpx.Response) -> Any:
    if not answer.is_success:
        raise StackError(
            f"{answer.request.method} {answer.request.url}: expected 2xx from Label Studio, "
            f"got {answer.status_code}: {answer.text[:500]}"
        )
    return answer.json() if answer.content else None
