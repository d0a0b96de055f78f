"""Our part of requests and urllib3: connections that read strictly, and pools of them."""

from __future__ import annotations

import contextlib
import http.client
import queue
import re
import ssl
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPResponse, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError

from ..cancel import watched
from .framing import FramingError, StrictResponse

POOL_SIZE = 1024
"""Connections kept for one destination. A pool can't know how many threads there will be."""

_TUNNEL = re.compile(r"(Tunnel connection failed: \d+).*", re.DOTALL)


class StaleConnection(http.client.RemoteDisconnected):
    """A connection that had been kept was closed by the server before it replied.

    That is no fault: the server may close it at any time (RFC 9112 section 9.5), and a new one may
    be used at once.
    """


class _Strict(HTTPConnection):
    response_class: type[http.client.HTTPResponse] = StrictResponse
    _replies = 0

    def connect(self) -> None:
        self._replies = 0
        try:
            super().connect()
        except TimeoutError as error:
            # That of a handshake would be taken for one of reading.
            raise ConnectTimeoutError(self, "TLS took longer than the time-out") from error

    def _tunnel(self) -> None:
        # http.client reads the proxy's reply to CONNECT by methods that only its own class has.
        self.response_class = http.client.HTTPResponse
        broken = False
        try:
            # A proxy may be long in saying yes.
            with watched(self.sock):
                super()._tunnel()
        except http.client.RemoteDisconnected:
            raise
        except http.client.HTTPException:
            # Its text is that of the proxy, which may repeat what it was sent.
            broken = True
        except OSError as error:
            # So is what follows the status.
            error.args = tuple(
                _TUNNEL.sub(r"\1", arg) if isinstance(arg, str) else arg for arg in error.args
            )
            raise
        finally:
            self.response_class = StrictResponse
        if broken:
            # Not within an except clause: the error there has the text.
            raise FramingError("what the proxy replied to CONNECT isn't HTTP")

    def getresponse(self) -> HTTPResponse:  # type: ignore[override]
        try:
            response = super().getresponse()
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError) as error:
            if self._replies and not isinstance(error, StaleConnection):
                raise StaleConnection("the server closed a connection that was kept") from error
            raise
        self._replies += 1
        return response


class Connection(_Strict):
    """A connection for http."""


class SecureConnection(_Strict, HTTPSConnection):
    """A connection for https."""

    def connect(self) -> None:
        """Connect."""
        super().connect()
        if self.ssl_context is not None and self.ssl_context.verify_mode == ssl.CERT_NONE:
            # It is the caller's choice, and was logged: no warning for each request.
            self.is_verified = True


class _Kept(queue.LifoQueue[Any]):
    """The connections that a pool keeps. urllib3 would fill it up with as many None at first."""

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        if item is not None:
            super().put(item, block, timeout)


class Pool(HTTPConnectionPool):
    """Connections for http."""

    ConnectionCls = Connection
    QueueCls = _Kept


class SecurePool(HTTPSConnectionPool):
    """Connections for https."""

    ConnectionCls = SecureConnection
    QueueCls = _Kept


class Adapter(HTTPAdapter):
    """Sends requests by one TLS context, and reads replies strictly."""

    def __init__(
        self,
        context: ssl.SSLContext | None,
        proxy: str | None,
        proxy_context: ssl.SSLContext | None,
    ) -> None:
        """Make an adapter.

        Args:
            context: The TLS context for the server; None where there is no TLS.
            proxy: The URL of the proxy that is used; None for none.
            proxy_context: The TLS context for the proxy; None where there is no TLS.
        """
        self._context = context
        self._proxy_context = proxy_context
        super().__init__(pool_maxsize=POOL_SIZE)
        self.poolmanager.pool_classes_by_scheme = {"http": Pool, "https": SecurePool}
        if proxy is not None:
            # Now, and not by the first of many threads.
            self.proxy_manager_for(proxy)

    def close(self) -> None:
        """Close the connections that are idle, and each other one when it comes back."""
        # Clearing the managers would leave that to whoever drops the last reply, which holds its
        # pool.
        for manager in (self.poolmanager, *self.proxy_manager.values()):
            for key in manager.pools.keys():  # noqa: SIM118 - not a dict: it can't be iterated
                with contextlib.suppress(KeyError):
                    manager.pools[key].close()
        super().close()

    def proxy_manager_for(self, proxy: str, **proxy_kwargs: Any) -> Any:
        """Return the pools of connections to a proxy."""
        manager = super().proxy_manager_for(
            proxy, proxy_ssl_context=self._proxy_context, **proxy_kwargs
        )
        manager.pool_classes_by_scheme = {"http": Pool, "https": SecurePool}
        return manager

    def build_connection_pool_key_attributes(
        self, request: requests.PreparedRequest, verify: Any, cert: Any = None
    ) -> tuple[Any, Any]:
        """Name the pool for a request: by destination, and by the one TLS context."""
        host, _ = super().build_connection_pool_key_attributes(request, verify, cert)
        # For http it is the proxy that may be reached by TLS.
        context = self._proxy_context if self._context is None else self._context
        return host, {} if context is None else {"ssl_context": context}

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """Do nothing: the TLS context says it all, and loading certifi's bundle costs much."""
