"""The client of Label Studio's HTTP API: token, one repeat after a 401, paging, limits and named errors.

Image files are not fetched here: their addresses come from task data, so `worker/guarded_http.py` fetches them.
"""

from __future__ import annotations

import json as json_format
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any, Self

import httpx

from job_queue.errors import LabelStudioFailed
from worker.label_studio import error_texts
from worker.label_studio.address import LabelStudioAddress
from worker.label_studio.credentials import Credentials
from worker.settings import Settings

_TIMEOUT_S = 100.0
_MAX_BYTES = 256 * 1024**2  # a page of tasks with brush masks is about 20 MB
_MAX_TOKEN_BYTES = 65_536
_PAGE_SIZE = 100

# What Label Studio calls the items of a list and their number: for tasks, and for everything else.
_LIST_KEYS = (("tasks", "total"), ("results", "count"))

_LOST_CONNECTION = (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)


class LabelStudioApi:
    """A connection to one Label Studio server. Threads may share it. Close it, or use it in a `with` statement."""

    def __init__(
        self,
        url: str,
        token: str | None,
        *,
        timeout_s: float = _TIMEOUT_S,
        headers: Mapping[str, str] | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Connect to nothing yet.

        Args:
            url: Label Studio's address, with the path if it is served below one.
            token: a personal access token, an access token or a legacy token; None: send no `Authorization`.
            timeout_s: limit of one whole request.
            headers: sent with every request.
            transport: replaces the network in tests.
        """
        self.address = LabelStudioAddress(url)
        self._credentials = Credentials(token, self._exchange)
        self._timeout_s = timeout_s
        # Proxies of the environment are for the internet, and Label Studio is reached directly.
        self._client = httpx.Client(
            base_url=self.address.base_url, timeout=timeout_s, headers=headers, trust_env=False, transport=transport
        )

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Return a client for the server that the settings name.

        Raises:
            LabelStudioFailed: the settings name no server.
        """
        if not settings.label_studio_url:
            raise LabelStudioFailed(
                "set OSPREY_LABEL_STUDIO_URL to Label Studio's address, and OSPREY_LABEL_STUDIO_TOKEN"
            )
        return cls(settings.label_studio_url, settings.label_studio_token)

    def __enter__(self) -> Self:
        """Close the connections at the end of a `with` statement."""
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def authorization(self, *, fresh: bool = False) -> dict[str, str]:
        """Return the `Authorization` header, which may be sent to Label Studio's own origin only.

        Args:
            fresh: exchange a personal access token again, because Label Studio has answered 401.

        Raises:
            LabelStudioRefused: Label Studio refuses the personal access token.
            LabelStudioFailed: Label Studio does not answer the exchange.
        """
        return self._credentials.header(fresh=fresh)

    def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        files: Mapping[str, tuple[str, bytes, str]] | None = None,
        max_bytes: int = _MAX_BYTES,
    ) -> Any:
        """Make one call and return its decoded answer, None for an empty one.

        Args:
            method: the HTTP method.
            path: the path below Label Studio's address.
            params: the query.
            json: the body.
            files: uploads instead of a body, by field: file name, content, media type.
            max_bytes: limit of the answer.

        Raises:
            LabelStudioRefused: Label Studio refuses the token.
            LabelStudioFailed: no answer in time, a status outside 2xx, or an answer that is too long or not JSON.
        """
        request = self._client.build_request(method, path, params=params, json=json, files=files)
        request.headers.update(self.authorization())
        status, body = self._send(request, max_bytes)
        if status == 401:  # an access token may end earlier than expected
            request.headers.update(self.authorization(fresh=True))
            status, body = self._send(request, max_bytes)
        return self._decoded(request, status, body)

    def pages(
        self, path: str, query: Mapping[str, Any], page_size: int = _PAGE_SIZE
    ) -> Iterator[tuple[list[dict[str, Any]], int]]:
        """Yield a list page by page, each with the number of items that the whole list has at that time.

        Raises:
            LabelStudioRefused, LabelStudioFailed: as for `call`; also if an answer is not a page of a list.
        """
        page, num_seen, longest = 1, 0, 0
        while True:
            answer = self.call("GET", path, params={**query, "page": page, "page_size": page_size})
            items, total = self._page_of(path, answer)
            yield items, total
            num_seen, longest = num_seen + len(items), max(longest, len(items))
            # The last page completes the total or is shorter; beyond it Label Studio answers 404.
            if not items or num_seen >= total or len(items) < longest:
                return
            page += 1

    def items(self, path: str, query: Mapping[str, Any], page_size: int = _PAGE_SIZE) -> Iterator[dict[str, Any]]:
        """Yield every item of a list.

        Raises:
            LabelStudioRefused, LabelStudioFailed: as for `pages`.
        """
        for items, _ in self.pages(path, query, page_size):
            yield from items

    def project(self, project_id: int) -> dict[str, Any]:
        """Return a project with its `label_config`, `title` and other fields.

        Raises:
            LabelStudioRefused, LabelStudioFailed: as for `call`; also if the answer is not a project.
        """
        path = f"/api/projects/{project_id}"
        project = self.call("GET", path)
        if not isinstance(project, dict) or not isinstance(project.get("label_config"), str):
            raise error_texts.unexpected(self.address.absolute(path), "a project with a labeling config", project)
        return project

    def _exchange(self, token: str) -> str:
        """Exchange a personal access token for an access token."""
        request = self._client.build_request("POST", "/api/token/refresh/", json={"refresh": token})
        status, body = self._send(request, _MAX_TOKEN_BYTES)
        if status in (400, 403):  # 401 is the usual refusal
            raise error_texts.refused(request, status, body, self._credentials.kind)
        answer = self._decoded(request, status, body)
        if not isinstance(answer, dict) or not isinstance(answer.get("access"), str):
            raise error_texts.unexpected(error_texts.plain_url(request), "an access token", "an answer without one")
        return str(answer["access"])

    def _send(self, request: httpx.Request, max_bytes: int) -> tuple[int, bytes]:
        """Send a request and return status and body."""
        try:
            try:
                return self._send_once(request, max_bytes)
            except _LOST_CONNECTION:
                if request.method != "GET":  # the server may have done it
                    raise
                return self._send_once(request, max_bytes)  # the server may have closed a kept connection
        except httpx.HTTPError as error:
            raise error_texts.no_answer(request, self._timeout_s, error) from error

    def _send_once(self, request: httpx.Request, max_bytes: int) -> tuple[int, bytes]:
        deadline = time.monotonic() + self._timeout_s
        body = bytearray()
        with closing(self._client.send(request, stream=True)) as response:
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > max_bytes:
                    raise error_texts.too_long(request, max_bytes)
                if time.monotonic() > deadline:
                    raise httpx.ReadTimeout("the answer is not complete", request=request)
        return response.status_code, bytes(body)

    def _decoded(self, request: httpx.Request, status: int, body: bytes) -> Any:
        if status == 401:
            raise error_texts.refused(request, status, body, self._credentials.kind)
        if not 200 <= status < 300:
            raise error_texts.not_successful(request, status, body)
        try:
            return json_format.loads(body) if body else None
        except ValueError as error:
            raise error_texts.unexpected(error_texts.plain_url(request), "JSON", error_texts.shown(body)) from error

    def _page_of(self, path: str, answer: Any) -> tuple[list[dict[str, Any]], int]:
        if isinstance(answer, dict):
            for list_key, count_key in _LIST_KEYS:
                items, count = answer.get(list_key), answer.get(count_key)
                if isinstance(items, list) and isinstance(count, int) and all(isinstance(each, dict) for each in items):
                    return items, count
        raise error_texts.unexpected(self.address.absolute(path), "a page of a list with its total", answer)
