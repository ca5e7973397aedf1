"""HTTP for addresses that come from task data: private addresses are refused unless they are allowed.

The check is made on the address that is connected to, when the connection is made. Every connection passes it, so it
also covers redirects and a name that resolves to another address the second time.
"""

from __future__ import annotations

import ipaddress
import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import httpcore

_NAT64 = ipaddress.ip_network("64:ff9b::/96")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class RequestFailed(Exception):
    """The address is refused, the connection failed, or the answer is too long or too late; the text has the reason."""


@dataclass(frozen=True, slots=True)
class Response:
    """A complete HTTP response; header names are lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class AllowedHosts:
    """Host names, addresses and networks whose private addresses may be connected to."""

    def __init__(self, entries: Iterable[str] = (), origins: Iterable[tuple[str, int]] = ()) -> None:
        """`entries`: `images.internal`, `10.1.2.3`, `10.0.0.0/8`; `origins`: (host, port) allowed exactly."""
        self._names: set[str] = set()
        self._networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
        for entry in entries:
            try:
                self._networks.append(ipaddress.ip_network(entry, strict=False))
            except ValueError:
                self._names.add(entry.lower())
        self._origins = {(host.lower(), port) for host, port in origins}

    def allows(self, host: str, port: int, address: Address) -> bool:
        """Return whether `host`:`port`, which resolved to `address`, may be connected to."""
        if host.lower() in self._names or (host.lower(), port) in self._origins:
            return True
        if any(address in network for network in self._networks if network.version == address.version):
            return True
        return is_public(address)


def is_public(address: Address) -> bool:
    """Return whether an address is public; an IPv4 address inside an IPv6 address is judged as IPv4."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
    return address.is_global and not address.is_multicast and not address.is_reserved


class _GuardedBackend(httpcore.NetworkBackend):
    """Resolves the name itself and connects to the address it has checked."""

    def __init__(self, allowed: AllowedHosts) -> None:
        self._allowed = allowed
        self._inner = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"the name {host!r} does not resolve: {error}") from error
        addresses = [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
        usable = [address for address in addresses if self._allowed.allows(host, port, address)]
        if not usable:
            raise RequestFailed(
                f"the address is refused: {host} resolves to {addresses[0]}, a private, loopback or link-local "
                "address; if it really serves images, name the host in OSPREY_IMAGE_ALLOW_HOSTS"
            )
        for position, address in enumerate(usable):
            try:
                return self._inner.connect_tcp(str(address), port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if position == len(usable) - 1:
                    raise
        raise AssertionError("unreachable: the last address raises or returns")


class GuardedHttp:
    """Makes requests without redirects, cookies or proxies, under one guard. Threads may share it."""

    def __init__(self, allowed: AllowedHosts, timeout_s: float) -> None:
        """`timeout_s` is the limit of a whole request, also if its body arrives slowly."""
        self._timeout_s = timeout_s
        self._pool = httpcore.ConnectionPool(network_backend=_GuardedBackend(allowed), max_keepalive_connections=4)

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()

    def get(self, url: str, *, headers: Mapping[str, str], max_bytes: int) -> Response:
        """Make a GET request and return the answer with its whole body.

        Raises:
            RequestFailed: there is no complete answer.
        """
        try:
            try:
                return self._once(url, headers, max_bytes)
            except (httpcore.RemoteProtocolError, httpcore.ReadError, httpcore.WriteError):
                # The server may have closed a kept connection meanwhile; the second attempt uses a new one.
                return self._once(url, headers, max_bytes)
        except httpcore.TimeoutException as error:
            raise RequestFailed(f"no answer within {self._timeout_s:.0f} s; check that the server is up") from error
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.UnsupportedProtocol) as error:
            raise RequestFailed(str(error)) from error

    def _once(self, url: str, headers: Mapping[str, str], max_bytes: int) -> Response:
        deadline = time.monotonic() + self._timeout_s
        limits = dict.fromkeys(("connect", "read", "write", "pool"), self._timeout_s)
        sent: dict[bytes | str, bytes | str] = {"Accept-Encoding": "identity", "User-Agent": "osprey-label-studio"}
        sent.update(headers.items())
        with self._pool.stream("GET", url, headers=sent, extensions={"timeout": limits}) as response:
            received = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
            chunks, num_bytes = [], 0
            for chunk in response.iter_stream():
                num_bytes += len(chunk)
                if num_bytes > max_bytes:
                    raise RequestFailed(f"more than {max_bytes} bytes; make it smaller or raise OSPREY_IMAGE_MAX_BYTES")
                if time.monotonic() > deadline:
                    raise httpcore.ReadTimeout(f"not complete after {self._timeout_s:.0f} s")
                chunks.append(chunk)
        return Response(response.status, received, b"".join(chunks))
