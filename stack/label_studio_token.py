"""The personal access token of the workers: check that it is valid, and make a new one."""

from __future__ import annotations

import httpx

from job_queue.errors import LabelStudioFailed, LabelStudioRefused
from stack.settings import StackError
from worker.label_studio.api import LabelStudioApi
from worker.label_studio.credentials import kind_of

_TIMEOUT_S = 60.0


def token_works(url: str, token: str) -> bool:
    """Return whether this is a personal access token that Label Studio accepts.

    Raises:
        StackError: Label Studio does not answer, or with an error of its own.
    """
    if kind_of(token) != "a personal access token":
        return False
    try:
        with LabelStudioApi(url, token, timeout_s=_TIMEOUT_S) as api:
            api.authorization(fresh=True)
    except LabelStudioRefused:
        return False
    except LabelStudioFailed as error:
        raise StackError(str(error)) from error
    return True


def make_token(url: str, email: str, password: str) -> str:
    """Log in as a browser does, and make a personal access token that replaces the user's present one.

    Raises:
        StackError: Label Studio refuses the login or the token, or does not answer.
    """
    try:
        with LabelStudioApi(url, None, timeout_s=_TIMEOUT_S, headers=_session_headers(url, email, password)) as api:
            # Label Studio allows one valid token per user and answers 409 to a request for a second one.
            for old in api.call("GET", "/api/token/"):
                api.call("POST", "/api/token/blacklist/", json={"refresh": old["token"]})
            return str(api.call("POST", "/api/token/")["token"])
    except LabelStudioFailed as error:
        raise StackError(str(error)) from error


def _session_headers(url: str, email: str, password: str) -> dict[str, str]:
    """Log in and return the headers of the session: cookies, CSRF token and referer."""
    try:
        with httpx.Client(base_url=url, timeout=_TIMEOUT_S, trust_env=False, headers={"Referer": url}) as client:
            client.get("/user/login/")
            form = {"email": email, "password": password, "csrfmiddlewaretoken": client.cookies.get("csrftoken") or ""}
            status = client.post("/user/login/", data=form).status_code
            cookies = dict(client.cookies)
    except httpx.HTTPError as error:
        raise StackError(
            f"expected the login page of Label Studio at {url}, got {type(error).__name__}: {error}; "
            "look into the log of Label Studio"
        ) from error
    if status != 302:
        raise StackError(
            f"expected Label Studio at {url} to accept the login {email}, got {status}; if its password was changed in "
            "Label Studio, write the new one into secrets.json of the state folder"
        )
    cookie = "; ".join(f"{name}={value}" for name, value in cookies.items())
    return {"Cookie": cookie, "X-CSRFToken": cookies.get("csrftoken", ""), "Referer": url}
