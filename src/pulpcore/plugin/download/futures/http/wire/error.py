"""What goes wrong on a connection by HTTP, as types that can be told apart."""

from __future__ import annotations

import http.client
import ssl


class FramingError(http.client.HTTPException):
    """It can't be told for sure where a reply begins or ends. The text says why."""


class UnsendableError(http.client.HTTPException):
    """A request has characters that would be read as its end, or as the end of a line."""


class StaleConnection(http.client.RemoteDisconnected):
    """The server closed an idle connection just as it was used again.

    That is no fault: a server may close an idle connection at any time (RFC 9112 section 9.5). The
    request may be sent again at once, by a new connection.
    """


class ConnectTimeout(TimeoutError):
    """No connection was made within the time-out: by TCP, by TLS, or through a proxy."""


class MissingCloseNotify(ssl.SSLEOFError):
    """TLS ended without a close_notify, and only the end of the connection ends this body.

    Somebody may have cut the body short (RFC 9112 section 9.8). All that came was handed out before
    this is raised, so whoever validates a digest of the whole may accept it.
    """

    def __init__(self) -> None:
        """Make one."""
        super().__init__(
            ssl.SSL_ERROR_EOF,
            "the connection ended without a close_notify, so the content may have been cut short",
        )


class ProxyError(OSError):
    """The proxy can't be reached, or didn't do what was asked. The cause says why."""


class TunnelRefused(ProxyError):
    """The proxy answered CONNECT with another status than 2xx.

    Attributes:
        status (int): The status.
        retry_after (str): What the field Retry-After says; '' without one.
        has_credentials (bool): Credentials were sent to it.
    """

    def __init__(self, status: int, retry_after: str = "", has_credentials: bool = False) -> None:
        """Make one.

        Args:
            status: The status of the reply.
            retry_after: What the field Retry-After says; '' without one.
            has_credentials: Whether credentials were sent to it.
        """
        # Not the reason phrase: a proxy may repeat there what it was sent.
        super().__init__(f"the proxy answered CONNECT with {status}")
        self.status = status
        self.retry_after = retry_after
        self.has_credentials = has_credentials


class SocksRefused(ProxyError):
    """The SOCKS proxy refused the credentials, or could not connect to the server.

    Attributes:
        is_login (bool): It refused the credentials, or the lack of them.
    """

    def __init__(self, text: str, is_login: bool) -> None:
        """Make one.

        Args:
            text: What the proxy said.
            is_login: Whether it refused the credentials.
        """
        super().__init__(text)
        self.is_login = is_login
