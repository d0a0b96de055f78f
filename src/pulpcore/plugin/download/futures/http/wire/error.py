"""Exceptions of the HTTP engine."""

from __future__ import annotations

import http.client
import ssl


class FramingError(http.client.HTTPException):
    """The framing of a response is ambiguous or malformed. The message says why."""


class UnsendableError(http.client.HTTPException):
    """A request has characters that a server would take for the end of a line or of the head."""


class StaleConnection(http.client.RemoteDisconnected):
    """The server closed an idle connection just when it was reused.

    A server may close an idle connection at any time (RFC 9112 section 9.5). The request may be
    repeated at once on a new connection.
    """


class ConnectTimeout(TimeoutError):
    """TCP, TLS or a proxy took longer than the time-out for connecting."""


class MissingCloseNotify(ssl.SSLEOFError):
    """TLS ended without a close_notify, in a body that ends with the connection.

    Somebody may have truncated the body (RFC 9112 section 9.8). The reader received all bytes
    before this is raised, so it may accept the body if its digest is validated.
    """

    def __init__(self) -> None:
        """Create the exception with its fixed message."""
        super().__init__(
            ssl.SSL_ERROR_EOF,
            "the connection ended without a close_notify, so the content may have been cut short",
        )


class ProxyError(OSError):
    """The proxy can't be reached, or failed. The cause says why."""


class TunnelRefused(ProxyError):
    """The proxy responded to CONNECT with a status other than 2xx.

    Attributes:
        status (int): The status.
        retry_after (str): The value of Retry-After; '' without one.
        has_credentials (bool): The request had credentials for the proxy.
    """

    def __init__(self, status: int, retry_after: str = "", has_credentials: bool = False) -> None:
        """Create the exception for a response of the proxy.

        Args:
            status: The status of the response.
            retry_after: The value of Retry-After; '' without one.
            has_credentials: Whether the request had credentials for the proxy.
        """
        # Without the reason phrase: a proxy may repeat the request's secrets in it.
        super().__init__(f"the proxy answered CONNECT with {status}")
        self.status = status
        self.retry_after = retry_after
        self.has_credentials = has_credentials


class SocksRefused(ProxyError):
    """The SOCKS proxy refused the credentials, or couldn't connect to the server.

    Attributes:
        is_login (bool): It refused the credentials, or requires some.
    """

    def __init__(self, text: str, is_login: bool) -> None:
        """Create the exception for an error of the proxy.

        Args:
            text: The message of PySocks.
            is_login: Whether the proxy refused the credentials, or requires some.
        """
        super().__init__(text)
        self.is_login = is_login
