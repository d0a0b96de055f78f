"""Adapters that the caller has mounted on a session, and their responses."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import timedelta

import requests
from requests.adapters import BaseAdapter
from urllib3 import HTTPHeaderDict

from ...net.url import URL
from .quiet import quiet


class ForeignAdapter:
    """An adapter that the caller has mounted, with the methods of our own that downloads use."""

    def __init__(self, adapter: BaseAdapter, verify: bool) -> None:
        """Wrap an adapter.

        Args:
            adapter: The adapter.
            verify: Verify certificates.
        """
        self._adapter, self._verify = adapter, verify

    def ask(
        self,
        request: requests.PreparedRequest,
        url: URL,
        connect_timeout: Callable[[], float | None],
        timeout: float | None,
        proxies: Mapping[str, str],
    ) -> requests.Response:
        """Send a request, and return the response with its body unread.

        Args:
            request: The request.
            url: Ignored: the adapter parses the URL of the request.
            connect_timeout: Returns the time-out for connecting (seconds); None for no limit.
            timeout: The time-out of each read (seconds); None for no limit.
            proxies: The proxies by scheme.

        Raises:
            requests.RequestException: There was no response.
        """
        began = time.monotonic()
        with quiet():
            reply = self._adapter.send(
                request,
                stream=True,
                timeout=(connect_timeout(), timeout),  # type: ignore[arg-type]
                verify=self._verify,
                proxies=proxies,
            )
        reply.elapsed = timedelta(seconds=time.monotonic() - began)
        return reply

    def destination(self, url: URL, proxies: Mapping[str, str]) -> None:
        """Return None: where the adapter connects to is unknown here.

        Args:
            url: The URL.
            proxies: The proxies by scheme.
        """


class ForeignReply:
    """A response of an adapter that the caller has mounted."""

    def __init__(self, response: requests.Response) -> None:
        """Wrap a response.

        Args:
            response: The response.
        """
        self._response = response

    @property
    def length(self) -> int | None:
        """The size of the body (bytes); None if the head doesn't give it."""
        found: int | None = self._response.raw.length_remaining
        return found

    @property
    def fields(self) -> Mapping[str, str]:
        """The values of the headers; their names ignore case."""
        return self._response.headers

    def values(self, name: str) -> list[str]:
        """Return the values of all fields with a name, as received.

        Args:
            name: The name, in lower case.
        """
        fields = getattr(self._response.raw, "headers", None)
        return fields.getlist(name) if isinstance(fields, HTTPHeaderDict) else []

    def take(self, size: int) -> bytes:
        """Return encoded bytes of the body that are available; b"" at its end.

        Args:
            size: The maximum number of bytes to return.
        """
        with quiet():
            data: bytes = self._response.raw.read1(size, decode_content=False)
        return data

    def was_taken(self, size: int) -> bool:
        """Return whether only :meth:`take` has read the body.

        Args:
            size: The number of bytes that :meth:`take` has returned.
        """
        count: int = self._response.raw.tell()
        return count == size

    def was_read_alone(self, size: int) -> bool:
        """Return whether only :meth:`take` has read the body so far.

        Args:
            size: The number of bytes that :meth:`take` has returned.
        """
        return self.was_taken(size)

    def drain(self) -> None:
        """Close the response. Whether reading the rest would block is unknown here."""
        with quiet():
            self._response.close()
