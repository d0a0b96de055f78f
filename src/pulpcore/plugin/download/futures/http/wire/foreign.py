"""Adapters that the caller has mounted on a session, and their responses."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import timedelta

import requests
from requests.adapters import BaseAdapter
from urllib3 import HTTPHeaderDict

from .quiet import quiet


def send(
    adapter: BaseAdapter,
    request: requests.PreparedRequest,
    timeouts: tuple[float | None, float | None],
    verify: bool,
    proxies: Mapping[str, str],
) -> requests.Response:
    """Send a request, and return the response with its body unread.

    Args:
        adapter: The adapter.
        request: The request.
        timeouts: The time-outs for connecting and for each read (seconds); None for no limit.
        verify: Verify the certificate.
        proxies: The proxies by scheme.

    Raises:
        requests.RequestException: There was no response.
    """
    began = time.monotonic()
    with quiet():
        reply = adapter.send(
            request,
            stream=True,
            timeout=timeouts,  # type: ignore[arg-type]
            verify=verify,
            proxies=proxies,
        )
    reply.elapsed = timedelta(seconds=time.monotonic() - began)
    return reply


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
